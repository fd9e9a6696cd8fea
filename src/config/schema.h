// Every key of the configuration, bound once to its field, type, limits and help text: TOML files, the command line,
// --help, --print-config and shell completion all come from this table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "config/run_config.h"

namespace lighthouse {

/// A configuration error. The message names the key, the file and the line (or the option), what is wrong, what would
/// do, and the nearest known key. Exit code 2.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One key as `--help` and completion show it.
struct KeyInfo {
  std::string key;            ///< "training.steps"
  std::string type;           ///< "integer", "number", "text", "true or false", "list of integers", "list of texts"
  std::string default_value;  ///< as TOML
  std::string help;           ///< one line with unit and limits
  std::vector<std::string> choices;  ///< the only values allowed; empty where they are not a list of words
};
std::vector<KeyInfo> config_keys();

/// The known key that was most likely meant by `name`: the same word in another section, or the closest spelling; or
/// "".
std::string nearest_key(const std::string& name);

/// Reads a TOML file over `config`. The order of its keys does not matter: model.preset sets the whole model section,
/// the section's other keys then change single values. Throws ConfigError, and then `config` is unchanged.
void apply_toml_file(RunConfig& config, const std::filesystem::path& path);
/// The same from text; errors call it `source`.
void apply_toml(RunConfig& config, const std::string& text, const std::string& source);

/// Sets one key from the command line's text (`--training.steps 200`). Lists are separated by commas, as 0,1,28,29
/// or [] for none.
/// Throws ConfigError, and then `config` is unchanged.
void apply_override(RunConfig& config, const std::string& key, const std::string& value);
/// All overrides of a command line, {key, value}: model.preset first; of a repeated key the last one counts.
void apply_overrides(RunConfig& config, const std::vector<std::pair<std::string, std::string>>& overrides);

/// Checks every value against its key's limits, and what needs several keys together (num_heads % num_kv_heads,
/// lighthouse_steps <= steps, layer numbers, ...). Throws ConfigError naming the keys.
void validate(const RunConfig& config);

/// The whole configuration as TOML with the help texts as comments; reading it back gives an equal configuration.
std::string to_toml(const RunConfig& config);
/// The same of some keys alone, with comments of their own, {key, one line}: the others are left to their defaults.
std::string to_toml(const RunConfig& config, const std::vector<std::pair<std::string, std::string>>& comments);

/// Model presets: "tiny" (about 1M parameters), ..., "paper", "llama3-8b". Throws ConfigError with the nearest name.
ModelConfig model_preset(const std::string& name);
std::vector<std::string> model_preset_names();
/// Trainable parameters of the decoder, a tied output head counted once.
int64_t num_parameters(const ModelConfig& model);
int64_t layer_parameters(const ModelConfig& model);  ///< of one block
/// Whether a layer is dense in stage 1 too.
bool is_dense_layer(const AttentionConfig& attention, int64_t layer);
/// Tokens of a layer's sliding window in stage 1; 0 for one that has none.
int64_t window_span(const AttentionConfig& attention, int64_t layer);
/// k of a layer's Lighthouse attention; nullopt for one that has none in stage 1 either.
std::optional<int64_t> lighthouse_topk(const AttentionConfig& attention, int64_t layer);
/// Whether a Lighthouse layer selects in the pass that gathers: where the norm scorer is given the heads that attention
/// is. Other selections are made by passes of their own, and kept where the layer is computed again.
bool selects_in_gather(const ModelConfig& model, Scorer scorer);
/// Whether the run has steps with Lighthouse attention.
bool has_lighthouse_stage(const RunConfig& config);
/// Whether a step, counted from 1, is the last of its stage.
bool is_last_of_stage(const TrainingConfig& training, int64_t step);
/// Whether the held-out text, where there is any, is read after that step; and how often in a run.
bool is_validated(const RunConfig& config, int64_t step);
int64_t num_validations(const RunConfig& config);
/// How often backward runs all of a layer's forward again: 0, 1 for the last of recompute_layers, 2 for those below.
int64_t times_recomputed(const RunConfig& config, int64_t layer);
/// Layers whose inputs wait in host memory, the first ones: backward comes to them last.
int64_t offloaded_layers(const RunConfig& config);
/// Inputs that wait there: those of all these layers, or one for each recompute_layers.
int64_t offloaded_inputs(const RunConfig& config);
/// Of all micro-batches of an optimizer step.
int64_t sequences_per_step(const TrainingConfig& training);
int64_t tokens_per_step(const TrainingConfig& training);

/// The known name closest to `name` in edit distance, or "" when none is near.
std::string nearest_name(const std::string& name, const std::vector<std::string>& known);
/// "; did you mean NEAREST?", or "" of "".
std::string did_you_mean(const std::string& nearest);

}  // namespace lighthouse
