// Training and validation sequences as a pure function of their index: the data position of a run is one integer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "data/token_source.h"

namespace lighthouse {

/// N + 1 tokens: inputs are the first N, targets the last N.
struct Sequence {
  std::vector<int64_t> inputs;      ///< [N]
  std::vector<int64_t> targets;     ///< [N]; kIgnoredTarget where the next token belongs to another document
  std::vector<int64_t> cu_seqlens;  ///< packing = documents: token offsets [num_docs + 1] from 0 to N; else empty
};
inline constexpr int64_t kIgnoredTarget = -100;

/// By what a run knows its corpus again.
struct CorpusIdentity {
  std::string fingerprint;  ///< SequenceLoader::fingerprint
  std::string content;      ///< SequenceLoader::content_fingerprint; empty: not known
};
/// What differs, in words; "" for the same corpus. A content that is not known agrees with any. `changes` of files, as
/// far as they are known, are said where files differ.
std::string difference(const CorpusIdentity& before, const CorpusIdentity& now, const std::string& changes = {});

/// packing = "chunks": all documents form one stream, cut into sequences; the last tokens, `validation_fraction` of the
/// sequences and at least one, are for validation and no token of them is trained on.
/// packing = "documents": every epoch lays the documents in a new order one after another and cuts that every N tokens;
/// the last documents are for validation. packer.h says more.
/// data.mixture: each corpus is cut, split and shuffled alone, with epochs of its own, and the sequences of all are
/// taken in the order of a MixtureSchedule (mixture.h). Validation has those of the first corpus, then of the next.
class SequenceLoader {
 public:
  /// Opens and checks the corpus. Throws InvalidArgument naming the file and what would do: missing or
  /// empty corpus, damaged index, fewer tokens than one sequence.
  ///
  /// `split_len`: the sequence length by which validation text is set apart, and training text cut, where that is not
  /// seq_len (0: it is). Validation at another length than a run's then reads only what the run held out.
  /// `group`: so many sequences that follow one another are of one corpus, as those of a micro-batch.
  /// `open`: opens each of the corpora by its path; open_source where it is empty.
  SequenceLoader(const DataConfig& config, int64_t seq_len, int64_t vocab_size, int64_t split_len = 0,
                 int64_t group = 1, const std::function<std::shared_ptr<TokenSource>(const std::string&)>& open = {});
  ~SequenceLoader();

  /// Sequence `index` of an endless stream; each epoch visits every training sequence once in an order shuffled by the
  /// seed and the epoch. Safe to call from several threads. Throws InvalidArgument for a token >= vocab_size, naming
  /// file and position; DamagedFile or std::system_error when a file changed or went since the corpus was opened.
  Sequence training_sequence(int64_t index) const;
  Sequence validation_sequence(int64_t index) const;  ///< index < num_validation_sequences(); always the same

  std::vector<std::string> sources() const;  ///< paths of the corpora that are trained on: one without a mixture
  size_t source_of(int64_t index) const;     ///< the corpus of a training sequence
  int64_t sequences_per_epoch() const;       ///< of all corpora, each read once
  /// Epochs of a corpus after the first `num_sequences` training sequences, which are whole groups.
  double epochs(size_t source, int64_t num_sequences) const;

  /// The corpus of data.mixture that a validation sequence was held out of; nullopt for one of data.validation_path.
  std::optional<size_t> validation_source_of(int64_t index) const;
  int64_t num_validation_sequences() const;  ///< 0 without validation_path and with validation_fraction 0
  int64_t num_training_tokens() const;       ///< of the corpus, less what is for validation
  /// What the corpora were read from, that of validation_path as "validation: NAME".
  const std::vector<CorpusFile>& files() const;
  /// Hash of corpus sizes, names and configuration: a checkpoint resumes only on the same data. The place of the corpus
  /// does not count.
  std::string fingerprint() const;
  /// Checksum of names, sizes and samples of the tokens (content_checksum), and of nothing else: equal for two runs on
  /// the same text. Reads them when it is called.
  std::string content_fingerprint() const;
  CorpusIdentity identity() const { return {fingerprint(), content_fingerprint()}; }

 private:
  struct Corpus;
  std::unique_ptr<Corpus> corpus_;
};

}  // namespace lighthouse
