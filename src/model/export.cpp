#include "model/export.h"

#include <algorithm>
#include <array>

#include "io/atomic_folder.h"
#include "io/durable_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/model_io.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kGenerationFile = "generation_config.json";
constexpr std::array kExportedFiles = {kHuggingfaceWeightsFile, kHuggingfaceConfigFile, kGenerationFile};

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
  write_tensors(written.path() / kHuggingfaceWeightsFile, converted(decoder.parameters(), options.dtype),
                {{"format", "pt"}});
  write_file_durably(written.path() / kHuggingfaceConfigFile, config.dump(2) + "\n");
  write_file_durably(written.path() / kGenerationFile, generation.dump(2) + "\n");
  written.commit();

  std::vector<fs::path> paths;
  for (const char* name : kExportedFiles) paths.push_back(target / name);
  return paths;
}

}  // namespace lighthouse
