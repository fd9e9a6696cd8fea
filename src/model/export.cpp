#include "model/export.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>

#include "io/atomic_folder.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/huggingface_rope.h"
#include "model/tensor_file.h"
#include "model/tokenizer_files.h"
#include "model/trained_tokenizer.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr std::array kModelFiles = {kHuggingfaceWeightsFile, kHuggingfaceConfigFile, kGenerationFile};
constexpr std::string_view kPadToken = "pad_token_id";
constexpr std::array kSpecialTokens = {"bos_token_id", "eos_token_id", kPadToken.data()};

bool is_exported(const std::string& name) {
  return std::find(kModelFiles.begin(), kModelFiles.end(), name) != kModelFiles.end() || is_tokenizer_file(name);
}

void check_options(const ExportOptions& options) {
  LIGHTHOUSE_CHECK(options.tokenizer.empty() || !tokenizer_files(options.tokenizer).empty(), "export: '",
                   options.tokenizer.string(), "' holds no file of a tokenizer, as tokenizer.json");
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
                   "' is not empty; choose another, or replace an earlier export with --overwrite");
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    LIGHTHOUSE_CHECK(is_exported(entry.path().filename().string()), "export: folder '", folder.string(), "' holds ",
                     quoted(entry.path().filename().string()),
                     ", which is not from an export; it would be lost, so choose another folder");
  }
}

NamedTensors converted(const NamedTensors& tensors, at::ScalarType dtype) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) result.emplace_back(name, tensor.detach().to(dtype));
  return result;
}

/// Texts of files by name.
using Files = std::map<std::string, std::string>;

nlohmann::json read_json(const fs::path& path) {
  if (!fs::exists(path)) return nlohmann::json::object();
  nlohmann::json object = parse_json(read_text_file(path), path.string());
  if (!object.is_object()) throw DamagedFile(detail::concat("'", path.string(), "': not a JSON object"));
  return object;
}

bool has(const nlohmann::json& object, const char* key) { return object.contains(key) && !object[key].is_null(); }

std::string text_of(const nlohmann::ordered_json& json) { return json.dump(2) + "\n"; }

/// All but the weights.
Files described(const ModelConfig& model, const ExportOptions& options) {
  const fs::path& tokenizer = options.tokenizer.empty() ? options.origin : options.tokenizer;
  std::vector<std::string> of_tokenizer = tokenizer_files(tokenizer);
  if (options.trained_tokenizer && !fs::exists(tokenizer / kTokenizerFile)) of_tokenizer.clear();
  const bool of_bytes = of_tokenizer.empty() && model.vocab_size == 256 && options.tokenizer.empty();
  const nlohmann::json origin = read_json(options.origin / kHuggingfaceConfigFile);
  int64_t max_positions = options.max_positions;
  if (has(origin, kMaxPositions)) {
    max_positions = std::max(max_positions, reading((options.origin / kHuggingfaceConfigFile).string(), [&] {
                               return whole_number(origin[kMaxPositions], kMaxPositions);
                             }));
  }
  nlohmann::json config =
      huggingface_config(model, options.dtype == at::kFloat ? "float32" : "bfloat16", max_positions);
  nlohmann::json generation = nlohmann::json::object();
  if (!options.trained_tokenizer) generation = read_json(options.origin / kGenerationFile);
  if (!options.tokenizer.empty()) generation.update(read_json(tokenizer / kGenerationFile));
  if (generation.empty()) generation["do_sample"] = true;
  for (const char* key : kSpecialTokens) {
    if (of_bytes) config[key] = kByteSpecial;
    if (has(origin, key) && (!options.trained_tokenizer || key == kPadToken)) config[key] = origin[key];
    if (!has(generation, key)) generation[key] = config[key];
    if (!options.tokenizer.empty()) config[key] = generation[key];
  }

  Files files = {{kHuggingfaceConfigFile, text_of(config)}, {kGenerationFile, text_of(generation)}};
  for (const std::string& name : of_tokenizer) {
    files[name] = read_text_file(tokenizer / name);
  }
  if (of_bytes) {
    files[kTokenizerFile] = text_of(byte_tokenizer());
    files[kTokenizerConfigFile] = text_of(byte_tokenizer_config(max_positions));
  }
  const bool of_ours = of_bytes || (options.trained_tokenizer && !of_tokenizer.empty());
  if (of_ours && model.family == ModelFamily::kQwen2) {
    files[kPlainTokenizerFile] = kPlainTokenizer;
    files[kTokenizerConfigFile] = with_plain_tokenizer(files[kTokenizerConfigFile]);
  }
  return files;
}

}  // namespace

std::vector<fs::path> export_huggingface(const Decoder& decoder, const fs::path& folder, const ExportOptions& options) {
  check_options(options);
  const fs::path target = folder.has_filename() ? folder : folder.parent_path();  // "out/" is "out"
  check_target(target, options.overwrite);
  const Files files = described(decoder.config(), options);

  create_folders_durably(parent_folder(target));
  AtomicFolder written(target);
  write_tensors(written.path() / kHuggingfaceWeightsFile, converted(decoder.values(), options.dtype),
                {{"format", "pt"}});
  for (const auto& [name, text] : files) write_file_durably(written.path() / name, text);
  written.commit();

  std::vector<fs::path> paths = {target / kHuggingfaceWeightsFile};
  for (const auto& [name, text] : files) paths.push_back(target / name);
  return paths;
}

}  // namespace lighthouse
