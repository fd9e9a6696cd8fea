#include "model/export.h"

#include <algorithm>
#include <array>
#include <set>

#include "io/atomic_folder.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "io/json_text.h"
#include "io/mapped_file.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/model_io.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kWeightsFile = "model.safetensors";
constexpr const char* kConfigFile = "config.json";
constexpr const char* kGenerationFile = "generation_config.json";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::array kExportedFiles = {kWeightsFile, kConfigFile, kGenerationFile};

void check_options(const ExportOptions& options) {
  LIGHTHOUSE_CHECK(options.dtype == at::kFloat || options.dtype == at::kBFloat16, "export: dtype ",
                   c10::toString(options.dtype), " must be float or bfloat16");
  LIGHTHOUSE_CHECK(options.max_positions >= 1, "export: max_positions ", options.max_positions, " must be at least 1");
}

/// The folder will be replaced as a whole, so nothing may be in it that is not an export's.
void check_target(const fs::path& folder, bool overwrite) {
  LIGHTHOUSE_CHECK(!folder.empty(), "export: no folder given");
  if (!fs::exists(folder)) return;
  LIGHTHOUSE_CHECK(fs::is_directory(folder), "export: '", folder.string(), "' is not a folder; choose another name");
  LIGHTHOUSE_CHECK(overwrite || fs::is_empty(folder), "export: folder '", folder.string(),
                   "' is not empty; choose another, or ask for it to be overwritten");
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const bool known =
        std::find(kExportedFiles.begin(), kExportedFiles.end(), entry.path().filename()) != kExportedFiles.end();
    LIGHTHOUSE_CHECK(known, "export: folder '", folder.string(), "' holds ", quoted(entry.path().filename().string()),
                     ", which is not from an export; it would be lost, so choose another folder");
  }
}

NamedTensors converted(const NamedTensors& tensors, at::ScalarType dtype) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) result.emplace_back(name, tensor.detach().to(dtype));
  return result;
}

/// The weight files of a folder, from the index of a model in shards where there is one.
std::vector<fs::path> weight_files(const fs::path& folder) {
  const fs::path index_path = folder / kIndexFile;
  if (fs::exists(folder / kWeightsFile) || !fs::exists(index_path)) return {folder / kWeightsFile};
  const nlohmann::json index = parse_json(read_text_file(index_path), index_path.string());
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw DamagedFile(detail::concat("'", index_path.string(), "': no object weight_map"));
  }
  std::set<fs::path> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const fs::path name = file.is_string() ? fs::path(file.get<std::string>()) : fs::path();
    if (name.empty() || name != name.filename()) {
      throw DamagedFile(detail::concat("'", index_path.string(), "': the file of tensor ", quoted(tensor),
                                       " is not the name of a file in this folder"));
    }
    files.insert(folder / name);
  }
  return {files.begin(), files.end()};
}

/// Tensors that some checkpoints hold although the model has no such weight.
bool is_redundant(const std::string& name, const ModelConfig& model) {
  return name.ends_with(".rotary_emb.inv_freq") || (model.tie_embeddings && name == "lm_head.weight");
}

}  // namespace

std::vector<fs::path> export_huggingface(const Decoder& decoder, const fs::path& folder, const ExportOptions& options) {
  check_options(options);
  const fs::path target = folder.has_filename() ? folder : folder.parent_path();  // "out/" is "out"
  check_target(target, options.overwrite);
  const char* dtype = options.dtype == at::kFloat ? "float32" : "bfloat16";
  const nlohmann::json config = huggingface_config(decoder.config(), dtype, options.max_positions);
  const nlohmann::json generation = {
      {"bos_token_id", nullptr}, {"eos_token_id", nullptr}, {"pad_token_id", nullptr}, {"do_sample", true}};

  create_folders_durably(parent_folder(target));
  AtomicFolder written(target);
  write_tensors(written.path() / kWeightsFile, converted(decoder.parameters(), options.dtype), {{"format", "pt"}});
  write_file_durably(written.path() / kConfigFile, config.dump(2) + "\n");
  write_file_durably(written.path() / kGenerationFile, generation.dump(2) + "\n");
  written.commit();

  std::vector<fs::path> paths;
  for (const char* name : kExportedFiles) paths.push_back(target / name);
  return paths;
}

Decoder load_huggingface(const fs::path& folder, const AttentionConfig& attention, const Execution& execution) {
  const fs::path config_path = folder / kConfigFile;
  const nlohmann::json config = parse_json(read_text_file(config_path), config_path.string());
  const ModelConfig model = parse_huggingface_config(config, config_path.string());
  NamedTensors tensors;
  for (const fs::path& path : weight_files(folder)) {
    for (auto& [name, tensor] : read_tensors(path)) {
      if (!is_redundant(name, model)) tensors.emplace_back(name, tensor);
    }
  }
  constexpr uint64_t kSeed = 0;  // of the buffers, which no such folder holds
  Decoder decoder(model, attention, kSeed, execution);
  tensors.insert(tensors.end(), decoder.buffers().begin(), decoder.buffers().end());
  load_parameters(decoder, tensors);
  return decoder;
}

}  // namespace lighthouse
