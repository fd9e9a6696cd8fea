#include "train/prepared_corpus.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "io/atomic_folder.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/tokenizer_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kFormat = "lighthouse-prepare 1";

/// The manifest that names the data set data.path; none where the corpus is of another origin.
std::optional<nlohmann::json> manifest_of(const DataConfig& data) {
  const fs::path corpus = data.path;
  const fs::path file = corpus.parent_path() / kManifestFile;
  if (!fs::is_regular_file(file)) return {};
  nlohmann::json manifest;
  try {
    manifest = parse_json(read_text_file(file), file.string());
  } catch (const DamagedFile&) {  // of another program
    return {};
  }
  if (!manifest.is_object() || manifest.value("format", nlohmann::json()) != kFormat) return {};
  const bool has_ending = corpus.extension() == ".bin" || corpus.extension() == ".idx";
  const std::string name = (has_ending ? corpus.stem() : corpus.filename()).string();
  const std::string source = detail::concat("'", file.string(), "'");
  return reading(source, [&] { return member(manifest, "data").contains(name); }) ? std::optional(std::move(manifest))
                                                                                  : std::nullopt;
}

}  // namespace

void check_vocabulary(const DataConfig& data, int64_t vocab_size) {
  const auto manifest = manifest_of(data);
  const std::string source = detail::concat("the manifest of '", data.path, "'");
  const int64_t needed = manifest ? reading(source, [&] { return whole_member(*manifest, "vocab_size"); }) : 0;
  LIGHTHOUSE_CHECK(needed <= vocab_size, "model.vocab_size = ", vocab_size, ": the tokenizer of '", data.path, "' has ",
                   needed, " tokens; give the model as many, or more");
}

void keep_tokenizer(const fs::path& run_dir, const DataConfig& data) {
  const fs::path target = run_dir / kTokenizerFolder;
  const fs::path folder = fs::path(data.path).parent_path() / kTokenizerFolder;
  if (!manifest_of(data) || !fs::is_directory(folder)) {
    if (fs::exists(target)) remove_folder(target);
    return;
  }
  std::vector<std::string> names = tokenizer_files(folder);
  names.emplace_back(kGenerationFile);
  AtomicFolder kept(target);
  for (const std::string& name : names) copy_regular_file(folder / name, kept.path() / name);
  kept.commit();
}

}  // namespace lighthouse
