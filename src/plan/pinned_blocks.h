// How tensors lie in pinned host memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace lighthouse {

/// Bytes of the blocks that hold `bytes` one after another, the largest first; what they have too much is in the last.
/// torch rounds every block of pinned memory up to a power of two, to up to twice what is asked for. So these are
/// powers of two: at most six, 1/32 or a page more than `bytes` together.
inline std::vector<int64_t> pinned_blocks(int64_t bytes) {
  constexpr int64_t kPage = 4096;
  const auto floor = [](int64_t size) { return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(size))); };
  const int64_t unit = std::max(kPage, floor(bytes) / 32);
  std::vector<int64_t> blocks;
  for (int64_t left = (bytes + unit - 1) / unit * unit; left > 0; left -= blocks.back()) blocks.push_back(floor(left));
  return blocks;
}

}  // namespace lighthouse
