// Shuffling as a pure function: no state, no memory, the same on every machine and standard library.
#pragma once

#include <cstdint>

namespace lighthouse {

/// A permutation of [0, size) drawn by (seed, epoch): a Feistel network over the next even power of two, walked until
/// it lands inside. O(1) time on average, whatever the size.
class Shuffle {
 public:
  Shuffle(int64_t size, int64_t seed, int64_t epoch);
  int64_t operator()(int64_t index) const;  ///< index in [0, size)

 private:
  uint64_t permute(uint64_t value) const;

  uint64_t size_;
  uint64_t key_;
  int half_bits_;
};

}  // namespace lighthouse
