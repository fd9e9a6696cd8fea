#include "train/prepared_corpus.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/mixture.h"
#include "io/atomic_folder.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/token_numbers.h"
#include "model/tokenizer_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kFormat = "lighthouse-prepare 1";

std::string manifest_name(const fs::path& path) { return detail::concat("the manifest of '", path.string(), "'"); }

/// The manifest of a folder of data sets; none where it is of another origin.
std::optional<nlohmann::json> manifest_in(const fs::path& folder) {
  const fs::path file = folder / kManifestFile;
  if (!fs::is_regular_file(file)) return {};
  nlohmann::json manifest;
  try {
    manifest = parse_json(read_text_file(file), file.string());
  } catch (const DamagedFile&) {  // of another program
    return {};
  }
  if (!manifest.is_object() || manifest.value("format", nlohmann::json()) != kFormat) return {};
  return manifest;
}

/// The manifest that names the data set `path`; none where the corpus is of another origin.
std::optional<nlohmann::json> manifest_of(const fs::path& corpus) {
  std::optional<nlohmann::json> manifest = manifest_in(corpus.parent_path());
  if (!manifest) return {};
  const bool has_ending = corpus.extension() == ".bin" || corpus.extension() == ".idx";
  const std::string name = (has_ending ? corpus.stem() : corpus.filename()).string();
  const bool named = reading(manifest_name(corpus), [&] { return member(*manifest, "data").contains(name); });
  return named ? manifest : std::nullopt;
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

/// What the corpus says of its tokenizer: a checksum, "sha256", or a "kind"; null where it does not say.
nlohmann::json tokenizer_of(const Prepared& corpus, const char* what) {
  const nlohmann::json nothing = nlohmann::json::object();
  return reading(manifest_name(corpus.path), [&] {
    return corpus.manifest.value("made_of", nothing).value("tokenizer", nothing).value(what, nlohmann::json());
  });
}

int64_t vocabulary_of(const Prepared& corpus) {
  return reading(manifest_name(corpus.path), [&] { return whole_member(corpus.manifest, "vocab_size"); });
}

}  // namespace

void check_vocabulary(const DataConfig& data, int64_t vocab_size) {
  const std::vector<Prepared> corpora = prepared_corpora(data);
  for (const Prepared& corpus : corpora) {
    const int64_t needed = vocabulary_of(corpus);
    LIGHTHOUSE_CHECK(needed <= vocab_size, "model.vocab_size = ", vocab_size, ": the tokenizer of '",
                     corpus.path.string(), "' has ", needed, " tokens; give the model as many, or more");
    const Prepared& first = corpora.front();
    LIGHTHOUSE_CHECK(tokenizer_of(corpus, "sha256") == tokenizer_of(first, "sha256"),
                     "data.mixture: the tokenizer of '", corpus.path.string(), "' is another than that of '",
                     first.path.string(), "'; prepare both with one");
  }
}

void check_tokenizer(const DataConfig& data, const fs::path& model) {
  for (const Prepared& corpus : prepared_corpora(data)) {
    const bool bytes = tokenizer_of(corpus, "kind") == "bytes";
    const std::string other = !bytes ? tokenizer_difference(corpus.path.parent_path() / kTokenizerFolder, model)
                              : has_text_tokenizer(model) ? "its tokens are bytes"
                                                          : "";
    LIGHTHOUSE_CHECK(other.empty(), "the corpus '", corpus.path.string(), "' has another tokenizer than the model in '",
                     model.string(), "' (", other, "); prepare it with lighthouse-prepare --tokenizer ",
                     model.string());
  }
}

std::optional<int64_t> prepared_vocabulary(const DataConfig& data) {
  std::optional<int64_t> vocabulary;
  for (const Prepared& corpus : prepared_corpora(data)) {
    vocabulary = std::max(vocabulary.value_or(0), vocabulary_of(corpus));
  }
  return vocabulary;
}

std::optional<PreparedFolder> prepared_folder(const fs::path& folder) {
  const std::optional<nlohmann::json> manifest = manifest_in(folder);
  if (!manifest) return {};
  return reading(manifest_name(folder), [&] {
    const nlohmann::json& data = member(*manifest, "data");
    PreparedFolder prepared{folder / "train", {}, 0};
    if (data.contains("validation")) {
      prepared.validation = folder / "validation";
      prepared.num_validation_tokens = whole_member(member(data["validation"], "statistics"), "tokens");
    }
    return prepared;
  });
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
