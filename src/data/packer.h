// How a stretch of a corpus becomes sequences of one length.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "data/sequence_loader.h"
#include "data/token_source.h"

namespace lighthouse {

/// The sequences of one epoch, and their order in it. Safe to use from several threads.
class Packer {
 public:
  virtual ~Packer() = default;
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;

  virtual int64_t num_sequences() const = 0;  ///< of an epoch; the same for every epoch
  virtual int64_t num_tokens() const = 0;     ///< of the stretch
  /// position in [0, num_sequences())
  virtual Sequence sequence(int64_t epoch, int64_t position) const = 0;

 protected:
  Packer() = default;
};

struct PackerOptions {
  std::shared_ptr<const TokenSource> source;
  int64_t seq_len = 0;  ///< N
  int64_t vocab_size = 0;
  std::optional<int64_t> seed;  ///< of the shuffling; none: every epoch in the corpus's order
};

/// Tokens [begin, end) as one stream: sequence i of the corpus's order is its tokens [i N, i N + N + 1).
std::unique_ptr<Packer> make_chunk_packer(PackerOptions options, int64_t begin, int64_t end);

/// Documents [begin, end) laid one after another, cut every N tokens: a document may run over several sequences, and
/// only its last token has no target. What is left at the end of an epoch is dropped. Documents of a single token teach
/// nothing and are left out.
std::unique_ptr<Packer> make_document_packer(PackerOptions options, int64_t begin, int64_t end);

}  // namespace lighthouse
