#include "data/sequence_loader.h"

#include <algorithm>
#include <sstream>
#include <string_view>

#include "data/mixture.h"
#include "data/packer.h"
#include "data/token_source.h"
#include "io/checksum.h"
#include "lighthouse/check.h"

namespace lighthouse {

namespace {

/// Token at which training ends and validation begins. Validation is the last n N + 1 tokens, training all before them:
/// no token is in both, not even as a target.
int64_t split_chunks(const TokenSource& source, double fraction, int64_t seq_len) {
  const int64_t num_tokens = source.num_tokens();
  if (fraction == 0) return num_tokens;
  const int64_t num_sequences = (num_tokens - 1) / seq_len;
  const auto share = static_cast<int64_t>(fraction * static_cast<double>(num_sequences));
  const int64_t validation_tokens = std::max<int64_t>(share, 1) * seq_len + 1;
  return std::max<int64_t>(num_tokens - validation_tokens, 0);
}

/// The same as a document. Validation is the fewest last documents that hold the fraction, and at least one sequence.
int64_t split_documents(const TokenSource& source, double fraction, int64_t seq_len) {
  const std::vector<int64_t>& offsets = source.document_offsets();
  if (fraction == 0) return source.num_documents();
  const auto share = static_cast<int64_t>(fraction * static_cast<double>(source.num_tokens()));
  int64_t wanted = std::max(share, seq_len);
  int64_t document = source.num_documents();
  while (document > 0 && wanted > 0) {
    --document;
    const int64_t length = offsets[static_cast<size_t>(document) + 1] - offsets[static_cast<size_t>(document)];
    if (length > 1) wanted -= length;  // the packer leaves out the others
  }
  return document;
}

void check_config(const DataConfig& config, int64_t seq_len, int64_t vocab_size) {
  LIGHTHOUSE_CHECK(seq_len >= 1, "data: sequence length ", seq_len, " must be at least 1");
  LIGHTHOUSE_CHECK(vocab_size >= 1, "data: vocabulary size ", vocab_size, " must be at least 1");
  LIGHTHOUSE_CHECK(config.validation_fraction >= 0 && config.validation_fraction < 1, "data: validation_fraction ",
                   config.validation_fraction, " must be at least 0 and less than 1");
}

}  // namespace

struct SequenceLoader::Corpus {
  /// One for each corpus of the mixture.
  struct Part {
    std::string path;
    std::shared_ptr<const TokenSource> source;
    std::unique_ptr<Packer> training;
    std::unique_ptr<Packer> validation;  ///< of the same corpus; null without
  };
  std::vector<Part> parts;
  std::unique_ptr<MixtureSchedule> schedule;
  int64_t group = 1;                                     ///< sequences that follow one another from one part
  std::shared_ptr<const TokenSource> validation_source;  ///< of data.validation_path; null without
  std::unique_ptr<Packer> validation;                    ///< of that
  std::string fingerprint;
  std::vector<CorpusFile> files;

  /// All that hold validation sequences, in order.
  std::vector<const Packer*> validations() const;
};

namespace {

std::unique_ptr<Packer> make_packer(Packing packing, PackerOptions options, int64_t begin, int64_t end) {
  return packing == Packing::kChunks ? make_chunk_packer(std::move(options), begin, end)
                                     : make_document_packer(std::move(options), begin, end);
}

void check_training(const Packer& training, const TokenSource& source, const std::string& path,
                    const DataConfig& config, int64_t seq_len) {
  LIGHTHOUSE_CHECK(training.num_sequences() >= 1, "data: '", path, "' has ", source.num_tokens(), " tokens in ",
                   source.num_documents(), " documents, which leaves no sequence of ", seq_len,
                   " tokens; give more text, a smaller training.seq_len",
                   config.packing == Packing::kDocuments ? ", data.packing = \"chunks\"" : "",
                   config.validation_fraction > 0 && config.validation_path.empty()
                       ? ", or a data.validation_path instead of a share of this corpus"
                       : "");
}

/// What is left for validation.
std::unique_ptr<Packer> validation_packer(const std::string& path, const DataConfig& config, PackerOptions options,
                                          int64_t begin) {
  const TokenSource& source = *options.source;
  const int64_t seq_len = options.seq_len;
  const int64_t end = config.packing == Packing::kDocuments ? source.num_documents() : source.num_tokens();
  std::unique_ptr<Packer> packer = make_packer(config.packing, std::move(options), begin, end);
  LIGHTHOUSE_CHECK(packer->num_sequences() >= 1, "data: '", path, "' leaves no sequence of ", seq_len,
                   " tokens for validation; give more text or a smaller training.seq_len");
  return packer;
}

/// The corpora of data.mixture, or the one of data.path.
std::vector<MixturePart> parts_of(const DataConfig& config) {
  return config.mixture.empty() ? std::vector<MixturePart>{{config.path, 1}} : parse_mixture(config.mixture);
}

/// The corpus of data.validation_path; what is wrong with it is not data.path's to put right.
template <typename Open>
auto in_words_of_validation(const Open& open) {
  try {
    return open();
  } catch (const InvalidArgument& error) {
    constexpr std::string_view kKey = "data.path";
    std::string text = error.what();
    for (size_t place = 0; (place = text.find(kKey, place)) != std::string::npos;) {
      text.replace(place, kKey.size(), "data.validation_path");
    }
    throw InvalidArgument(text);
  }
}

std::string make_fingerprint(const std::string& training, const std::string& validation, const DataConfig& config,
                             int64_t seq_len) {
  std::ostringstream text;
  text.precision(17);  // every double differs from every other
  text << training << ' ' << validation << ' ' << config.packing << ' ' << config.validation_fraction << ' '
       << config.validation_path.empty() << ' ' << config.seed << ' ' << seq_len;
  return checksum(std::as_bytes(std::span(text.view())));
}

}  // namespace

std::vector<const Packer*> SequenceLoader::Corpus::validations() const {
  if (validation) return {validation.get()};
  std::vector<const Packer*> all;
  for (const Part& part : parts) {
    if (part.validation) all.push_back(part.validation.get());
  }
  return all;
}

std::string difference(const CorpusIdentity& before, const CorpusIdentity& now, const std::string& changes) {
  if (before.fingerprint != now.fingerprint) {
    return changes.empty() ? "files, their sizes or how they are read differ" : changes;
  }
  if (before.content.empty() || now.content.empty() || before.content == now.content) return "";
  return "its files have the same names and sizes, but not the same bytes";
}

SequenceLoader::SequenceLoader(const DataConfig& config, int64_t seq_len, int64_t vocab_size, int64_t split_len,
                               int64_t group,
                               const std::function<std::shared_ptr<TokenSource>(const std::string&)>& open)
    : corpus_(std::make_unique<Corpus>()) {
  check_config(config, seq_len, vocab_size);
  if (split_len == 0) split_len = seq_len;
  const bool by_documents = config.packing == Packing::kDocuments;
  const bool own_corpus = !config.validation_path.empty();
  const double fraction = own_corpus ? 0 : config.validation_fraction;
  std::vector<double> weights;
  std::string training_prints;
  const auto opened = [&](const std::string& path) -> std::shared_ptr<TokenSource> {
    return open ? open(path) : open_source(path, config.format, config.extensions);
  };
  const std::vector<MixturePart> mixture = parts_of(config);
  for (const auto& [path, weight] : mixture) {
    Corpus::Part part{path, opened(path), nullptr, nullptr};
    const int64_t end = by_documents ? split_documents(*part.source, fraction, split_len)
                                     : split_chunks(*part.source, fraction, split_len);
    part.training = make_packer(config.packing, {part.source, split_len, vocab_size, config.seed}, 0, end);
    check_training(*part.training, *part.source, path, config, split_len);
    if (fraction > 0) {
      part.validation = validation_packer(path, config, {part.source, seq_len, vocab_size, std::nullopt}, end);
    }
    for (const CorpusFile& file : part.source->files()) {
      corpus_->files.push_back({mixture.size() == 1 ? file.name : path + ": " + file.name, file.bytes});
    }
    training_prints += (training_prints.empty() ? "" : " ") + part.source->fingerprint();
    if (mixture.size() > 1) training_prints += detail::concat('=', weight);
    weights.push_back(weight);
    corpus_->parts.push_back(std::move(part));
  }
  corpus_->schedule = std::make_unique<MixtureSchedule>(weights);
  corpus_->group = group;
  std::string validation_print = training_prints;
  if (own_corpus) {
    corpus_->validation_source = in_words_of_validation([&] { return opened(config.validation_path); });
    validation_print = corpus_->validation_source->fingerprint();
    corpus_->validation = validation_packer(config.validation_path, config,
                                            {corpus_->validation_source, seq_len, vocab_size, std::nullopt}, 0);
    for (const CorpusFile& file : corpus_->validation_source->files()) {
      corpus_->files.push_back({"validation: " + file.name, file.bytes});
    }
  }
  corpus_->fingerprint = make_fingerprint(training_prints, validation_print, config, split_len);
}

SequenceLoader::~SequenceLoader() = default;

Sequence SequenceLoader::training_sequence(int64_t index) const {
  LIGHTHOUSE_CHECK(index >= 0, "data: training sequence ", index, " must be at least 0");
  const int64_t group = corpus_->group;
  const auto [source, before] = corpus_->schedule->place(index / group);
  const Packer& training = *corpus_->parts[source].training;
  const int64_t number = before * group + index % group;
  return training.sequence(number / training.num_sequences(), number % training.num_sequences());
}

Sequence SequenceLoader::validation_sequence(int64_t index) const {
  LIGHTHOUSE_CHECK(index >= 0 && index < num_validation_sequences(), "data: validation sequence ", index,
                   " must be in [0, ", num_validation_sequences(), ")");
  for (const Packer* packer : corpus_->validations()) {
    if (index < packer->num_sequences()) return packer->sequence(0, index);
    index -= packer->num_sequences();
  }
  return {};
}

std::optional<size_t> SequenceLoader::validation_source_of(int64_t index) const {
  if (corpus_->validation) return {};
  for (size_t source = 0; source < corpus_->parts.size(); ++source) {
    const Packer* packer = corpus_->parts[source].validation.get();
    if (packer == nullptr) continue;
    if (index < packer->num_sequences()) return source;
    index -= packer->num_sequences();
  }
  return {};
}

std::vector<std::string> SequenceLoader::sources() const {
  std::vector<std::string> paths;
  for (const Corpus::Part& part : corpus_->parts) paths.push_back(part.path);
  return paths;
}

size_t SequenceLoader::source_of(int64_t index) const {
  return corpus_->schedule->place(index / corpus_->group).source;
}

double SequenceLoader::epochs(size_t source, int64_t num_sequences) const {
  const int64_t read = corpus_->schedule->count(source, num_sequences / corpus_->group) * corpus_->group;
  return static_cast<double>(read) / static_cast<double>(corpus_->parts[source].training->num_sequences());
}

int64_t SequenceLoader::sequences_per_epoch() const {
  int64_t count = 0;
  for (const Corpus::Part& part : corpus_->parts) count += part.training->num_sequences();
  return count;
}

int64_t SequenceLoader::num_validation_sequences() const {
  int64_t count = 0;
  for (const Packer* packer : corpus_->validations()) count += packer->num_sequences();
  return count;
}

int64_t SequenceLoader::num_training_tokens() const {
  int64_t count = 0;
  for (const Corpus::Part& part : corpus_->parts) count += part.training->num_tokens();
  return count;
}

const std::vector<CorpusFile>& SequenceLoader::files() const { return corpus_->files; }
std::string SequenceLoader::fingerprint() const { return corpus_->fingerprint; }
std::string SequenceLoader::content_fingerprint() const {
  std::string text;
  const auto add = [&](const TokenSource& source) {
    if (!text.empty()) text += ' ';
    text += source.fingerprint() + ' ' + content_checksum(source);
  };
  for (const Corpus::Part& part : corpus_->parts) add(*part.source);
  if (corpus_->validation_source) add(*corpus_->validation_source);
  return checksum(std::as_bytes(std::span(text)));
}

}  // namespace lighthouse
