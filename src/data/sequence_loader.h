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

class SequenceLoader {
 public:
  /// Opens and checks the corpus (memory-mapped). Throws InvalidArgument naming the file and what would do: missing or
  /// empty corpus, damaged index, fewer tokens than one sequence.
  SequenceLoader(const DataConfig& config, int64_t seq_len, int64_t vocab_size);
  ~SequenceLoader();

  /// Sequence `index` of an endless stream; each epoch visits every training sequence once in an order shuffled by the
  /// seed and the epoch. Safe to call from several threads. Throws InvalidArgument for a token >= vocab_size, naming
  /// file and position.
  Sequence training_sequence(int64_t index) const;
  Sequence validation_sequence(int64_t index) const;  ///< index < num_validation_sequences(); always the same

  int64_t sequences_per_epoch() const;
  int64_t num_validation_sequences() const;
  int64_t num_training_tokens() const;
  /// Hash of corpus sizes, names and configuration: a checkpoint resumes only on the same data.
  std::string fingerprint() const;

 private:
  struct Corpus;
  std::unique_ptr<Corpus> corpus_;
};

}  // namespace lighthouse
