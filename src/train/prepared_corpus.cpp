#include "train/prepared_corpus.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "data/mixture.h"
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

/// The manifest that names the data set `path`; none where the corpus is of another origin.
std::optional<nlohmann::json> manifest_of(const fs::path& corpus) {
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

/// A corpus that lighthouse-prepare has made.
struct Prepared {
  fs::path path;
  nlohmann::json manifest;
};

/// Those of a run, in its order.
std::vector<Prepared> prepared_corpora(const DataConfig& data) {
  std::vector<fs::path> paths;
  for (const MixturePart& part : parse_mixture(data.mixture)) paths.emplace_back(part.path);
  if (paths.empty()) paths.emplace_back(data.path);
  std::vector<Prepared> corpora;
  for (const fs::path& path : paths) {
    if (auto manifest = manifest_of(path)) corpora.push_back({path, std::move(*manifest)});
  }
  return corpora;
}

std::string manifest_name(const fs::path& path) { return detail::concat("the manifest of '", path.string(), "'"); }

/// Checksum of the tokenizer; null where the manifest does not say.
nlohmann::json tokenizer_of(const nlohmann::json& manifest, const fs::path& path) {
  if (!manifest.contains("tokenizer")) return {};
  return reading(manifest_name(path), [&] { return manifest["tokenizer"].value("sha256", nlohmann::json()); });
}

}  // namespace

void check_vocabulary(const DataConfig& data, int64_t vocab_size) {
  const std::vector<Prepared> corpora = prepared_corpora(data);
  for (const auto& [path, manifest] : corpora) {
    const int64_t needed = reading(manifest_name(path), [&] { return whole_member(manifest, "vocab_size"); });
    LIGHTHOUSE_CHECK(needed <= vocab_size, "model.vocab_size = ", vocab_size, ": the tokenizer of '", path.string(),
                     "' has ", needed, " tokens; give the model as many, or more");
    const Prepared& first = corpora.front();
    LIGHTHOUSE_CHECK(tokenizer_of(manifest, path) == tokenizer_of(first.manifest, first.path),
                     "data.mixture: the tokenizer of '", path.string(), "' is another than that of '",
                     first.path.string(), "'; prepare both with one");
  }
}

void keep_tokenizer(const fs::path& run_dir, const DataConfig& data) {
  const fs::path target = run_dir / kTokenizerFolder;
  const std::vector<Prepared> corpora = prepared_corpora(data);
  const fs::path folder = corpora.empty() ? fs::path() : corpora.front().path.parent_path() / kTokenizerFolder;
  if (!fs::is_directory(folder)) {
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
