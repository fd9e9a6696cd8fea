#include "data/shuffle.h"

#include <algorithm>
#include <bit>

namespace lighthouse {

namespace {

constexpr int kRounds = 6;
// At least 256 values, so that permutations of a handful of items are as evenly drawn as large ones.
constexpr int kMinHalfBits = 4;

/// splitmix64's output function
uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

}  // namespace

Shuffle::Shuffle(int64_t size, int64_t seed, int64_t epoch)
    : size_(static_cast<uint64_t>(size)),
      key_(mix(mix(static_cast<uint64_t>(seed)) ^ static_cast<uint64_t>(epoch))),
      half_bits_(std::max((static_cast<int>(std::bit_width(size_)) + 1) / 2, kMinHalfBits)) {}

uint64_t Shuffle::permute(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const uint64_t next = left ^ (mix(key_ ^ mix(round << 32 ^ right)) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Shuffle::operator()(int64_t index) const {
  uint64_t value = permute(static_cast<uint64_t>(index));
  while (value >= size_) value = permute(value);  // ends: the cycle returns to `index`, which is inside
  return static_cast<int64_t>(value);
}

}  // namespace lighthouse
