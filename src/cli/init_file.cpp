#include "cli/init_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "config/key_table.h"
#include "config/limits.h"
#include "config/schema.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "plan/advice.h"
#include "plan/memory.h"
#include "plan/time.h"
#include "train/text.h"

namespace lighthouse::cli {
namespace {

constexpr int64_t kMostValidationSequences = 8;

using Reasons = std::vector<std::pair<std::string, std::string>>;

std::string longer_rope_text(const InitModel& model, const RunConfig& config) {
  return detail::concat("a base to begin with for ", config.training.seq_len, " positions, of which the model has ",
                        model.positions);
}

/// Where the keys of [model] come from, of those that have another value than where nothing is said.
void add_model(const InitModel& model, const InitCorpus& corpus, const RunConfig& config, Reasons& reasons) {
  for (const Key& key : key_table()) {
    if (key.section() != "model" || key.name == kPresetKey) continue;
    if (value_toml(key, config) == value_toml(key, RunConfig{})) continue;
    const bool of_corpus = !model.is_folder && key.name == "model.vocab_size" && !corpus.is_text;
    reasons.emplace_back(key.name, of_corpus ? "tokens of the corpus's tokenizer, up to a multiple of 64"
                                   : model.rope_changed && key.name == "model.rope_theta"
                                       ? longer_rope_text(model, config)
                                   : model.is_folder ? "of config.json"
                                                     : "of the preset " + model.name);
  }
  if (model.trained) reasons.emplace_back("training.initial_weights", "training goes on from its weights");
  if (model.rope_changed) reasons.emplace_back("training.initial_rope", "its RoPE was made for fewer positions");
}

void add_data(const InitCorpus& corpus, RunConfig& config, Reasons& reasons) {
  reasons.emplace_back("data.path", "the corpus: " + std::to_string(corpus.tokens) + " tokens to train on");
  config.validation.sequences = std::min(kMostValidationSequences, corpus.validation_sequences);
  reasons.emplace_back("validation.sequences", std::to_string(corpus.validation_sequences) + " were held out");
  if (!corpus.data.validation_path.empty()) {
    reasons.emplace_back("data.validation_path", "no token of it is trained on");
  } else {
    reasons.emplace_back("data.validation_fraction",
                         corpus.why_fraction.empty() ? "of the tokens, held out from the end" : corpus.why_fraction);
  }
}

/// Memory and time of a stage, as plan predicts them.
std::string stage_text(const RunConfig& config, const PlanDevice& device, bool lighthouse) {
  std::string text = "stage " + std::string(lighthouse ? "1 " : "2 ") +
                     memory_text(step_memory(config, lighthouse, device.cuda).total());
  if (device.profile) text += ", " + fixed(step_time(config, lighthouse, *device.profile).total(), 2) + " s a step";
  return text;
}

std::string header(const InitModel& model, const PlanDevice& device, const std::string& output,
                   const RunConfig& config) {
  const MeshShape mesh = mesh_of(config.parallel);
  std::string predicted;
  for (const bool lighthouse : stages_of(config.training)) {
    predicted += (predicted.empty() ? "" : "; ") + stage_text(config, device, lighthouse);
  }
  if (device.profile) predicted += "; all steps in " + duration(run_seconds(config, *device.profile));
  return detail::concat("# Written by lighthouse init: ", json_string(model.name), " at ", config.training.seq_len,
                        " tokens on ", mesh.size() == 1 ? "" : std::to_string(mesh.size()) + " x ",
                        json_string(device.name), " (", memory_text(device.memory_bytes),
                        "). A first configuration, to be changed: each line says why.\n",
                        "# Predicted by plan: ", predicted, ".\n",
                        "# Start it: ", train_command(json_string(output), mesh.size()), "\n\n");
}

}  // namespace

double longer_rope_theta(const InitModel& model, int64_t seq_len) {
  const auto channels = static_cast<double>(std::max<int64_t>(model.config.head_dim, 4));
  const double longer = static_cast<double>(seq_len) / static_cast<double>(model.positions);
  return rounded(model.config.rope_theta * std::pow(longer, channels / (channels - 2)), 2);
}

std::string train_command(const std::string& file, int64_t world_size) {
  const std::string launch = world_size == 1 ? "" : "launch -n " + std::to_string(world_size) + " ";
  return "lighthouse " + launch + "train --config " + file;
}

std::string init_file(const InitModel& model, const InitCorpus& corpus, const PlanDevice& device,
                      const std::string& output, const StartingPoint& start) {
  RunConfig config = start.config;
  Reasons reasons = start.reasons;
  apply_overrides(config, {{"training.initial_weights", model.trained ? model.name : ""},
                           {"data.path", corpus.data.path},
                           {"data.validation_path", corpus.data.validation_path},
                           {"logging.run_dir", "runs/" + std::filesystem::path(output).stem().string()}});
  if (model.rope_changed) config.training.initial_rope = InitialRope::kChanged;
  reasons.emplace_back("logging.run_dir", "metrics and checkpoints; the same command goes on from there");
  add_model(model, corpus, config, reasons);
  add_data(corpus, config, reasons);
  validate(config);
  return header(model, device, output, config) + to_toml(config, reasons);
}

}  // namespace lighthouse::cli
