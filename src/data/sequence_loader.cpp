#include "data/sequence_loader.h"

#include <algorithm>
#include <sstream>

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
  LIGHTHOUSE_CHECK(config.packing == "chunks" || config.packing == "documents", "data: packing \"", config.packing,
                   "\" must be chunks or documents");
  LIGHTHOUSE_CHECK(config.validation_fraction >= 0 && config.validation_fraction < 1, "data: validation_fraction ",
                   config.validation_fraction, " must be at least 0 and less than 1");
}

}  // namespace

struct SequenceLoader::Corpus {
  std::unique_ptr<Packer> training;
  std::unique_ptr<Packer> validation;  ///< null without validation
  std::string fingerprint;
  std::shared_ptr<const TokenSource> source, validation_source;
  std::vector<CorpusFile> files;
};

namespace {

std::unique_ptr<Packer> make_packer(const std::string& packing, PackerOptions options, int64_t begin, int64_t end) {
  return packing == "chunks" ? make_chunk_packer(std::move(options), begin, end)
                             : make_document_packer(std::move(options), begin, end);
}

void check_training(const Packer& training, const TokenSource& source, const DataConfig& config, int64_t seq_len) {
  LIGHTHOUSE_CHECK(training.num_sequences() >= 1, "data: '", config.path, "' has ", source.num_tokens(), " tokens in ",
                   source.num_documents(), " documents, which leaves no sequence of ", seq_len,
                   " tokens for training; give more text, a smaller training.seq_len",
                   config.packing == "documents" ? ", data.packing = \"chunks\"" : "",
                   config.validation_fraction > 0 && config.validation_path.empty()
                       ? ", or a data.validation_path instead of a share of this corpus"
                       : "");
}

std::string make_fingerprint(const TokenSource& training, const TokenSource& validation, const DataConfig& config,
                             int64_t seq_len) {
  std::ostringstream text;
  text.precision(17);  // every double differs from every other
  text << training.fingerprint() << ' ' << validation.fingerprint() << ' ' << config.packing << ' '
       << config.validation_fraction << ' ' << config.validation_path.empty() << ' ' << config.seed << ' ' << seq_len;
  return checksum(std::as_bytes(std::span(text.view())));
}

}  // namespace

std::string difference(const CorpusIdentity& before, const CorpusIdentity& now) {
  if (before.fingerprint != now.fingerprint) return "files, their sizes or how they are read differ";
  if (before.content.empty() || now.content.empty() || before.content == now.content) return "";
  return "its files have the same names and sizes, but not the same bytes";
}

SequenceLoader::SequenceLoader(const DataConfig& config, int64_t seq_len, int64_t vocab_size, int64_t split_len)
    : corpus_(std::make_unique<Corpus>()) {
  check_config(config, seq_len, vocab_size);
  if (split_len == 0) split_len = seq_len;
  const bool by_documents = config.packing == "documents";
  const bool own_corpus = !config.validation_path.empty();
  const std::shared_ptr<const TokenSource> source = open_source(config.path, config.format, config.extensions);
  const double fraction = own_corpus ? 0 : config.validation_fraction;
  const int64_t validation_begin =
      by_documents ? split_documents(*source, fraction, split_len) : split_chunks(*source, fraction, split_len);
  corpus_->training = make_packer(config.packing, {source, split_len, vocab_size, config.seed}, 0, validation_begin);
  check_training(*corpus_->training, *source, config, split_len);

  std::shared_ptr<const TokenSource> validation_source = source;
  if (own_corpus) validation_source = open_source(config.validation_path, config.format, config.extensions);
  if (own_corpus || fraction > 0) {
    const int64_t end = by_documents ? validation_source->num_documents() : validation_source->num_tokens();
    corpus_->validation = make_packer(config.packing, {validation_source, seq_len, vocab_size, std::nullopt},
                                      own_corpus ? 0 : validation_begin, end);
    LIGHTHOUSE_CHECK(corpus_->validation->num_sequences() >= 1, "data: '",
                     own_corpus ? config.validation_path : config.path, "' leaves no sequence of ", seq_len,
                     " tokens for validation; give more text or a smaller training.seq_len");
  }
  corpus_->fingerprint = make_fingerprint(*source, *validation_source, config, split_len);
  corpus_->source = source;
  corpus_->validation_source = validation_source;
  corpus_->files = source->files();
  for (const CorpusFile& file : own_corpus ? validation_source->files() : std::vector<CorpusFile>()) {
    corpus_->files.push_back({"validation: " + file.name, file.bytes});
  }
}

SequenceLoader::~SequenceLoader() = default;

Sequence SequenceLoader::training_sequence(int64_t index) const {
  LIGHTHOUSE_CHECK(index >= 0, "data: training sequence ", index, " must be at least 0");
  const int64_t per_epoch = sequences_per_epoch();
  return corpus_->training->sequence(index / per_epoch, index % per_epoch);
}

Sequence SequenceLoader::validation_sequence(int64_t index) const {
  LIGHTHOUSE_CHECK(index >= 0 && index < num_validation_sequences(), "data: validation sequence ", index,
                   " must be in [0, ", num_validation_sequences(), ")");
  return corpus_->validation->sequence(0, index);
}

int64_t SequenceLoader::sequences_per_epoch() const { return corpus_->training->num_sequences(); }
int64_t SequenceLoader::num_validation_sequences() const {
  return corpus_->validation ? corpus_->validation->num_sequences() : 0;
}
int64_t SequenceLoader::num_training_tokens() const { return corpus_->training->num_tokens(); }
const std::vector<CorpusFile>& SequenceLoader::files() const { return corpus_->files; }
std::string SequenceLoader::fingerprint() const { return corpus_->fingerprint; }
std::string SequenceLoader::content_fingerprint() const {
  const auto describe = [](const TokenSource& source) { return source.fingerprint() + ' ' + content_checksum(source); };
  std::string text = describe(*corpus_->source);
  if (corpus_->validation_source != corpus_->source) text += ' ' + describe(*corpus_->validation_source);
  return checksum(std::as_bytes(std::span(text)));
}

}  // namespace lighthouse
