// Training and validation sequences as a pure function of their index: the data position of a run is one integer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace lighthouse {

/// N + 1 tokens: inputs are the first N, targets the last N.
struct Sequence {
  std::vector<int64_t> inputs;      ///< [N]
  std::vector<int64_t> targets;     ///< [N]; kIgnoredTarget where the next token belongs to another document
  std::vector<int64_t> cu_seqlens;  ///< packing = documents: token offsets [num_docs + 1] from 0 to N; else empty
};
inline constexpr int64_t kIgnoredTarget = -100;

/// packing = "chunks": all documents form one stream, cut into sequences; the last tokens, `validation_fraction` of the
/// sequences and at least one, are for validation and no token of them is trained on.
/// packing = "documents": every epoch lays the documents in a new order one after another and cuts that every N tokens;
/// the last documents are for validation. packer.h says more.
class SequenceLoader {
 public:
  /// Opens and checks the corpus (memory-mapped). Throws InvalidArgument naming the file and what would do: missing or
  /// empty corpus, damaged index, fewer tokens than one sequence.
  SequenceLoader(const DataConfig& config, int64_t seq_len, int64_t vocab_size);
  ~SequenceLoader();

  /// Sequence `index` of an endless stream; each epoch visits every training sequence once in an order shuffled by the
  /// seed and the epoch. Safe to call from several threads. Throws InvalidArgument for a token >= vocab_size, naming
  /// file and position; DamagedFile or std::system_error when a file changed or went since the corpus was opened.
  Sequence training_sequence(int64_t index) const;
  Sequence validation_sequence(int64_t index) const;  ///< index < num_validation_sequences(); always the same

  int64_t sequences_per_epoch() const;
  int64_t num_validation_sequences() const;  ///< 0 without validation_path and with validation_fraction 0
  int64_t num_training_tokens() const;       ///< of the corpus, less what is for validation
  /// Hash of corpus sizes, names and configuration: a checkpoint resumes only on the same data. The place of the corpus
  /// does not count.
  std::string fingerprint() const;

 private:
  struct Corpus;
  std::unique_ptr<Corpus> corpus_;
};

}  // namespace lighthouse
