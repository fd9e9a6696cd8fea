#include "train/initial_weights.h"

#include <string_view>

#include "config/key_table.h"
#include "io/atomic_folder.h"
#include "io/input_file.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/import.h"
#include "model/tokenizer_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kKey = "training.initial_weights";

void check_files(const fs::path& folder) {
  LIGHTHOUSE_CHECK(fs::is_directory(folder), kKey, ": '", folder.string(),
                   "' is not a folder; give one that save_pretrained or lighthouse export has written");
  LIGHTHOUSE_CHECK(fs::exists(folder / kHuggingfaceConfigFile), kKey, ": '", folder.string(), "' has no ",
                   kHuggingfaceConfigFile,
                   "; it must be the model's as save_pretrained or lighthouse export writes it");
  LIGHTHOUSE_CHECK(fs::exists(folder / kHuggingfaceWeightsFile) || fs::exists(folder / kHuggingfaceIndexFile), kKey,
                   ": '", folder.string(), "' has neither ", kHuggingfaceWeightsFile, " nor ", kHuggingfaceIndexFile,
                   "; load and save the model with transformers, which writes safetensors");
}

/// A value as a shell takes it: without quotes, and a list without brackets.
std::string option_text(std::string toml) {
  if (toml == "[]") return toml;
  std::erase_if(toml, [](char c) { return std::string_view("\"[] ").find(c) != std::string_view::npos; });
  return toml;
}

/// The folder's model under the names of our configuration: every key that is to be changed is named at once, as
/// options.
void check_same_model(const ModelConfig& model, const fs::path& folder, InitialRope rope) {
  RunConfig ours;
  ours.model = model;
  RunConfig theirs;
  theirs.model = read_huggingface_config(folder);
  theirs.model.init_std = model.init_std;  // of weights that are not drawn
  const bool may_change = rope == InitialRope::kChanged;
  bool is_changed = false;
  std::string differing;
  std::string options;
  for (const Key& key : key_table()) {
    if (key.section() != "model" || key.name == kPresetKey) continue;
    const std::string wanted = value_toml(key, theirs);
    const std::string given = value_toml(key, ours);
    if (wanted == given) continue;
    const bool of_rope = key.name.starts_with("model.rope_");
    is_changed = is_changed || of_rope;
    if (of_rope && may_change) continue;
    differing += detail::concat(differing.empty() ? "" : ", ", key.name, " (", wanted, " there, ", given, " here)");
    options += detail::concat(" --", key.name, " ", option_text(wanted));
  }
  LIGHTHOUSE_CHECK(differing.empty(), kKey, ": the model in '", folder.string(), "' differs in ", differing,
                   is_changed && !may_change ? "; for another RoPE, as of a longer context, add "
                                               "--training.initial_rope changed; or else set the folder's values:"
                                             : "; set the folder's values:",
                   options);
  LIGHTHOUSE_CHECK(!may_change || is_changed,
                   "training.initial_rope = \"changed\": model.rope_theta = ", model.rope_theta,
                   " and all else of model.rope_* are those of the model in '", folder.string(),
                   "'; set the base or the scaling that it is to have, or leave it \"kept\"");
}

}  // namespace

void load_initial_weights(Decoder& decoder, const fs::path& folder, InitialRope rope) {
  check_files(folder);
  check_same_model(decoder.config(), folder, rope);
  load_huggingface_weights(decoder, folder);
}

void keep_initial_model(const fs::path& run_dir, const fs::path& folder) {
  const fs::path target = run_dir / kInitialModelFolder;
  if (folder.empty()) {
    if (fs::exists(target)) remove_folder(target);
    return;
  }
  std::vector<std::string> names = tokenizer_files(folder);
  names.emplace_back(kHuggingfaceConfigFile);
  if (fs::exists(folder / kGenerationFile)) names.emplace_back(kGenerationFile);
  AtomicFolder kept(target);
  for (const std::string& name : names) copy_regular_file(folder / name, kept.path() / name);
  kept.commit();
}

fs::path initial_model_of(const fs::path& run_dir, const RunConfig& config) {
  for (const fs::path& folder : {run_dir / kInitialModelFolder, fs::path(config.training.initial_weights)}) {
    if (fs::is_directory(folder)) return folder;
  }
  return {};
}

}  // namespace lighthouse
