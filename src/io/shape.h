// Sizes of tensors that a file describes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

namespace lighthouse {

/// Elements of a tensor, each of so many bytes: their number of bytes. nullopt where that, or what the strides of the
/// tensor would be, exceeds 64 bits; the strides of one without elements count each size of 0 as 1.
inline std::optional<int64_t> bytes_of_shape(std::span<const int64_t> shape, int64_t element_bytes = 1) {
  int64_t extent = element_bytes;
  bool is_empty = false;
  for (const int64_t size : shape) {
    is_empty = is_empty || size == 0;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) return std::nullopt;
  }
  return is_empty ? 0 : extent;
}

}  // namespace lighthouse
