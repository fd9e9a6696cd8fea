// Tokens of files, of any dtype, as int64.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace lighthouse {

/// The values of an unaligned little-endian array, widened. A float that is no integer becomes -1, which no vocabulary
/// holds.
template <typename T>
void widen(const std::byte* data, std::span<int64_t> out) {
  for (size_t position = 0; position < out.size(); ++position) {
    T value;
    std::memcpy(&value, data + position * sizeof(T), sizeof(T));
    if constexpr (std::is_floating_point_v<T>) {
      constexpr T kMax = 9e15;  // beyond, neighbouring integers are not told apart
      out[position] = value == std::trunc(value) && std::fabs(value) < kMax ? static_cast<int64_t>(value) : -1;
    } else {
      out[position] = int64_t{value};  // signed dtypes keep their sign: a negative token is an error, not a large one
    }
  }
}

}  // namespace lighthouse
