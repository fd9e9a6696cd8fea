// How many tokens' gate and up are there at a time in the backward of the feed-forward. Knows no torch.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace lighthouse {

/// Tokens of a tile, a power of two: as many as have gate and up within 8 GiB. Matrix gradients are sums over tiles,
/// one after another, so the bits of rows that are longer depend on it.
inline int64_t feed_forward_tile(int64_t ffn_dim, int64_t element_bytes) {
  constexpr int64_t kMostBytes = int64_t{1} << 33;
  const int64_t fitting = std::max<int64_t>(kMostBytes / (2 * ffn_dim * element_bytes), 1);
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(fitting)));
}

}  // namespace lighthouse
