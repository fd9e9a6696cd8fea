#include "train/prepared_corpus.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/mixture.h"
#include "data/token_source.h"
#include "io/atomic_folder.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/token_numbers.h"
#include "model/tokenizer_files.h"
#include "model/trained_tokenizer.h"
#include "train/text.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kFormat = "lighthouse-prepare 1";
constexpr const char* kBytes = "bytes";  // a kind of tokenizer

std::string manifest_name(const fs::path& path) { return detail::concat("the manifest of '", path.string(), "'"); }

/// The manifest of a folder of data sets; none where it is of another origin. Throws DamagedFile for what is left of
/// one.
std::optional<nlohmann::json> manifest_in(const fs::path& folder) {
  const fs::path file = folder / kManifestFile;
  if (!fs::is_regular_file(file)) return {};
  const std::string text = read_text_file(file);
  nlohmann::json manifest;
  try {
    manifest = parse_json(text, file.string(), {.without = "sources"});  // of which there may be millions
  } catch (const DamagedFile& error) {
    if (text.find(kFormat) == std::string::npos) return {};  // of another program
    throw DamagedFile(detail::concat(error.what(), "; copy the folder anew, or prepare it with lighthouse-prepare"));
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

/// A corpus of a run, and what lighthouse-prepare says of it where it has made it.
struct Corpus {
  const char* key;  ///< of the configuration, that names it
  fs::path path;
  bool is_text;
  std::optional<nlohmann::json> manifest;
};

/// Those of a run: to train on, in its order, and then to validate on.
std::vector<Corpus> corpora_of(const DataConfig& data) {
  std::vector<Corpus> corpora;
  const auto add = [&](const char* key, const fs::path& path) {
    std::optional<nlohmann::json> manifest = manifest_of(path);
    corpora.push_back({key, path, !manifest && is_text(data, path), std::move(manifest)});
  };
  for (const MixturePart& part : parse_mixture(data.mixture)) add("data.mixture", part.path);
  if (corpora.empty()) add("data.path", data.path);
  if (!data.validation_path.empty()) add("data.validation_path", data.validation_path);
  return corpora;
}

/// What the corpus says of its tokenizer: a checksum, "sha256", or a "kind"; null where it does not say.
nlohmann::json tokenizer_of(const Corpus& corpus, const char* what) {
  const nlohmann::json nothing = nlohmann::json::object();
  return reading(manifest_name(corpus.path), [&] {
    return corpus.manifest->value("made_of", nothing).value("tokenizer", nothing).value(what, nlohmann::json());
  });
}

bool is_of_bytes(const Corpus& corpus) {
  return corpus.is_text || (corpus.manifest && tokenizer_of(corpus, "kind") == kBytes);
}

int64_t vocabulary_of(const Corpus& corpus) {
  return reading(manifest_name(corpus.path), [&] { return whole_member(*corpus.manifest, "vocab_size"); });
}

fs::path tokenizer_folder(const Corpus& corpus) { return corpus.path.parent_path() / kTokenizerFolder; }

/// The tokenizer that the manifest speaks of is there.
void check_tokenizer_files(const Corpus& corpus) {
  const fs::path folder = tokenizer_folder(corpus);
  std::vector<std::string> names;
  reading(manifest_name(corpus.path), [&] {
    const nlohmann::json files = corpus.manifest->value("tokenizer_files", nlohmann::json::object());
    for (const auto& [name, checksum] : files.items()) names.push_back(name);
  });
  if (fs::is_directory(folder)) names.emplace_back(kGenerationFile);
  for (const std::string& name : names) {
    LIGHTHOUSE_CHECK(fs::is_regular_file(folder / name), corpus.key, ": '", (folder / name).string(),
                     "' is missing, a part of the tokenizer of '", corpus.path.string(),
                     "'; copy the whole folder that lighthouse-prepare has written");
  }
}

/// What the tokens of a corpus are, in words; two that are read together have the same.
std::string tokens_of(const Corpus& corpus) {
  if (is_of_bytes(corpus)) return kBytes;
  const nlohmann::json checksum = tokenizer_of(corpus, "sha256");
  return checksum.is_string() ? checksum.get<std::string>() : "a tokenizer";
}

/// Changes the copy of the tokenizer of a corpus so that it makes of a text what the model was trained on.
void as_trained(const Corpus& corpus, const fs::path& folder) {
  if (!fs::exists(folder / kTokenizerFile)) return;
  const auto change = [&](const char* name, const auto& changed) {
    if (!fs::exists(folder / name)) return;
    const std::string text = read_text_file(folder / name);
    fs::remove(folder / name);
    write_file_durably(folder / name, changed(text));
  };
  change(kTokenizerConfigFile, with_plain_class);
  std::optional<NamedToken> begin;
  const nlohmann::json named = tokenizer_of(corpus, "begin_of_text");
  if (named.is_object()) {
    begin = reading(manifest_name(corpus.path), [&] {
      return NamedToken{member(named, "token").get<std::string>(), whole_member(named, "id")};
    });
  }
  if (tokenizer_of(corpus, "kind").is_string())
    change(kTokenizerFile, [&](const std::string& text) { return with_begin(text, begin); });
}

/// Throws InvalidArgument when two corpora have different tokens, where that is known of them.
void check_alike(const Corpus& first, const Corpus& other) {
  if (tokens_of(first) == tokens_of(other)) return;
  LIGHTHOUSE_CHECK(!first.is_text && !other.is_text, other.key, ": '", (first.is_text ? first : other).path.string(),
                   "' is text, of which the bytes are read, and '", (first.is_text ? other : first).path.string(),
                   "' was made with a tokenizer; prepare both with one");
  throw InvalidArgument(detail::concat(other.key, ": the tokenizer of '", other.path.string(),
                                       "' is another than that of '", first.path.string(), "'; prepare both with one"));
}

/// How the tokenizer of a prepared corpus differs from that of a model, and what would do; "" where it does not.
std::string difference_from(const Corpus& corpus, const fs::path& model, int64_t vocab_size) {
  const std::string prepare = detail::concat("; prepare it with lighthouse-prepare --tokenizer ", model.string());
  if (is_of_bytes(corpus)) return has_text_tokenizer(model) ? " (its tokens are bytes)" + prepare : "";
  const fs::path folder = tokenizer_folder(corpus);
  const std::optional<std::string> difference = tokenizer_difference(folder, model);
  if (difference) return difference->empty() ? "" : detail::concat(" (", *difference, ")", prepare);
  const std::vector<std::string> of_model = tokenizer_files(model);
  const std::string copy = detail::concat("where you know that they are the same, copy the files of '", folder.string(),
                                          "' into the model's folder");
  if (!of_model.empty()) {
    return detail::concat(", as far as can be told: of the files of both, ", listed(tokenizer_files(folder), 5),
                          " here and ", listed(of_model, 5), " there, none can be compared", prepare, ", or, ", copy);
  }
  const int64_t tokens = vocabulary_of(corpus);
  if (tokens == vocab_size) return "";
  return detail::concat(", as far as can be told: the model has none, and ", vocab_size,
                        " tokens, of which the tokenizer of the corpus has ", tokens, "; ", copy);
}

}  // namespace

bool is_text(const DataConfig& data, const fs::path& path) {
  if (data.format != CorpusFormat::kAuto) return data.format == CorpusFormat::kText;
  if (manifest_in(path)) return false;  // the folder of data sets, of which one is to be named
  try {
    return detect_format(path.string()) == CorpusFormat::kText && fs::exists(path);
  } catch (const InvalidArgument&) {  // which opening it says
    return false;
  }
}

void check_vocabulary(const DataConfig& data, int64_t vocab_size) {
  const Corpus* first = nullptr;
  const std::vector<Corpus> corpora = corpora_of(data);
  for (const Corpus& corpus : corpora) {
    if (!corpus.manifest && !corpus.is_text) continue;
    if (corpus.manifest) {
      const int64_t needed = vocabulary_of(corpus);
      LIGHTHOUSE_CHECK(needed <= vocab_size, "model.vocab_size = ", vocab_size, ": the tokenizer of '",
                       corpus.path.string(), "' has ", needed, " tokens; give the model as many, or more");
      check_tokenizer_files(corpus);
    }
    if (first == nullptr) first = &corpus;
    check_alike(*first, corpus);
  }
}

void check_tokenizer(const DataConfig& data, const fs::path& model, int64_t vocab_size) {
  for (const Corpus& corpus : corpora_of(data)) {
    LIGHTHOUSE_CHECK(!corpus.is_text || !has_text_tokenizer(model), corpus.key, ": '", corpus.path.string(),
                     "' is text, of which the bytes are read, and the model in '", model.string(),
                     "' has a tokenizer; prepare it with lighthouse-prepare --tokenizer ", model.string());
    if (!corpus.manifest) continue;
    const std::string other = difference_from(corpus, model, vocab_size);
    LIGHTHOUSE_CHECK(other.empty(), "the corpus '", corpus.path.string(), "' has another tokenizer than the model in '",
                     model.string(), "'", other);
  }
}

std::optional<int64_t> prepared_vocabulary(const DataConfig& data) {
  std::optional<int64_t> vocabulary;
  for (const Corpus& corpus : corpora_of(data)) {
    if (corpus.manifest) vocabulary = std::max(vocabulary.value_or(0), vocabulary_of(corpus));
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
  const std::vector<Corpus> corpora = corpora_of(data);
  const auto corpus = std::find_if(corpora.begin(), corpora.end(), [](const Corpus& one) { return one.manifest; });
  const fs::path folder = corpus == corpora.end() ? fs::path() : tokenizer_folder(*corpus);
  if (!fs::is_directory(folder)) {
    if (fs::exists(target)) remove_folder(target);
    return;
  }
  std::vector<std::string> names = tokenizer_files(folder);
  names.emplace_back(kGenerationFile);
  AtomicFolder kept(target);
  for (const std::string& name : names) {
    if (!is_chat_file(name)) copy_regular_file(folder / name, kept.path() / name);
  }
  as_trained(*corpus, kept.path());
  kept.commit();
}

}  // namespace lighthouse
