// Element types of the CPU stages and their arithmetic: 32 bytes of accumulators at a time.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "lighthouse/check.h"
#include "lighthouse/dtype.h"

namespace lighthouse {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

/// What elements of type T are added up in.
template <typename T>
struct AccumulatorOf {
  using Type = float;
};
template <>
struct AccumulatorOf<double> {
  using Type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::Type;

/// Neighbouring channels in one vector register, converted to the accumulator's type.
template <typename T>
struct LanesOf {
  using Type __attribute__((vector_size(32))) = Accumulator<T>;
};
template <typename T>
using Lanes = typename LanesOf<T>::Type;
template <typename T>
inline constexpr int kLanes = static_cast<int>(sizeof(Lanes<T>) / sizeof(Accumulator<T>));

using Float8 = Lanes<float>;
using Word8 __attribute__((vector_size(32))) = uint32_t;
using Half8 __attribute__((vector_size(16))) = uint16_t;
using Half16 __attribute__((vector_size(32))) = uint16_t;

template <typename T>
inline Lanes<T> load(const T* source) {
  Lanes<T> lanes;
  std::memcpy(&lanes, source, sizeof(lanes));
  return lanes;
}
template <typename T>
inline void store(T* target, Lanes<T> lanes) {
  std::memcpy(target, &lanes, sizeof(lanes));
}

template <>
inline Float8 load(const BFloat16* source) {
  Half8 halves;
  std::memcpy(&halves, source, sizeof(halves));
  return std::bit_cast<Float8>(__builtin_convertvector(halves, Word8) << 16);
}
/// Rounds to nearest, ties to even; a NaN stays one: it keeps its upper bits and is made quiet.
template <>
inline void store(BFloat16* target, Float8 lanes) {
  const Word8 bits = std::bit_cast<Word8>(lanes);
  const Word8 rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Word8 quiet = bits | 0x400000;
  const auto words = std::bit_cast<Half16>(lanes == lanes ? rounded : quiet);
  const Half8 halves = __builtin_shufflevector(words, words, 1, 3, 5, 7, 9, 11, 13, 15);  // the upper ones
  std::memcpy(target, &halves, sizeof(halves));
}

#if defined(__F16C__)
template <>
inline Float8 load(const Float16* source) {
  __m128i halves;
  std::memcpy(&halves, source, sizeof(halves));
  return _mm256_cvtph_ps(halves);
}
template <>
inline void store(Float16* target, Float8 lanes) {
  const __m128i halves = _mm256_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(target, &halves, sizeof(halves));
}
#else
template <>
inline Float8 load(const Float16* source) {
  Float8 lanes;
  for (int lane = 0; lane < kLanes<Float16>; ++lane)
    lanes[lane] = static_cast<float>(std::bit_cast<_Float16>(source[lane]));
  return lanes;
}
template <>
inline void store(Float16* target, Float8 lanes) {
  for (int lane = 0; lane < kLanes<Float16>; ++lane)
    target[lane] = std::bit_cast<Float16>(static_cast<_Float16>(lanes[lane]));
}
#endif

/// The first `count` < kLanes elements; the other lanes are zero.
template <typename T>
inline Lanes<T> load_some(const T* source, int64_t count) {
  T padded[kLanes<T>] = {};
  std::memcpy(padded, source, static_cast<size_t>(count) * sizeof(T));
  return load(padded);
}
template <typename T>
inline void store_some(T* target, Lanes<T> lanes, int64_t count) {
  T padded[kLanes<T>];
  store(padded, lanes);
  std::memcpy(target, padded, static_cast<size_t>(count) * sizeof(T));
}

/// Sum of the lanes, in an order of its own.
template <typename T>
inline Accumulator<T> sum_of_lanes(Lanes<T> lanes) {
  Accumulator<T> sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += lanes[lane];
  return sum;
}

/// Calls body(T{}) with the element type of `dtype`.
template <typename Body>
void dispatch_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat64:
      return body(double{});
    case DType::kBFloat16:
      return body(BFloat16{});
    case DType::kFloat16:
      return body(Float16{});
  }
  LIGHTHOUSE_CHECK(false, "the CPU stages know no dtype ", static_cast<int>(dtype));
}

}  // namespace lighthouse
