#include <algorithm>

#include "data/packer.h"
#include "data/shuffle.h"

namespace lighthouse {

namespace {

class ChunkPacker final : public Packer {
 public:
  ChunkPacker(PackerOptions options, int64_t begin, int64_t end)
      : options_(std::move(options)), begin_(begin), end_(end) {}

  int64_t num_sequences() const override { return std::max<int64_t>(num_tokens() - 1, 0) / options_.seq_len; }
  int64_t num_tokens() const override { return end_ - begin_; }

  Sequence sequence(int64_t epoch, int64_t position) const override {
    const int64_t chunk = options_.seed ? Shuffle(num_sequences(), *options_.seed, epoch)(position) : position;
    std::vector<int64_t> tokens(static_cast<size_t>(options_.seq_len) + 1);
    read_checked(*options_.source, begin_ + chunk * options_.seq_len, options_.vocab_size, tokens);
    Sequence sequence;
    sequence.targets.assign(tokens.begin() + 1, tokens.end());
    tokens.pop_back();
    sequence.inputs = std::move(tokens);
    return sequence;
  }

 private:
  PackerOptions options_;
  int64_t begin_, end_;  // tokens
};

}  // namespace

std::unique_ptr<Packer> make_chunk_packer(PackerOptions options, int64_t begin, int64_t end) {
  return std::make_unique<ChunkPacker>(std::move(options), begin, end);
}

}  // namespace lighthouse
