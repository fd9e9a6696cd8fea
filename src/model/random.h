// Random numbers as a function of (seed, name, index): no state, any order, the same bits on every machine.
#pragma once

#include <cstdint>
#include <string_view>

namespace lighthouse {

/// Where the numbers of one stream start; streams of different seeds or names are unrelated.
uint64_t random_stream(uint64_t seed, std::string_view name);

/// Number `index` of a stream: 64 random bits (splitmix64).
constexpr uint64_t random_bits(uint64_t stream, uint64_t index) {
  uint64_t z = stream + index + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

/// In [0, 1).
constexpr double random_uniform(uint64_t stream, uint64_t index) {
  return static_cast<double>(random_bits(stream, index) >> 11) * 0x1p-53;
}

/// Mean 0, variance 1 - 2^-32, normal in good approximation: twelve 16-bit uniforms added (Irwin-Hall), so within
/// +-6. Integers up to the last multiplication: a logarithm or cosine would differ between machines.
constexpr double random_normal(uint64_t stream, uint64_t index) {
  int64_t sum = 0;
  for (uint64_t part = 0; part < 3; ++part) {
    for (uint64_t bits = random_bits(stream, 3 * index + part), left = 4; left > 0; --left, bits >>= 16) {
      sum += static_cast<int64_t>(bits & 0xFFFF);
    }
  }
  constexpr int64_t kMean = 6 * 0xFFFF;
  return static_cast<double>(sum - kMean) * 0x1p-16;
}

}  // namespace lighthouse
