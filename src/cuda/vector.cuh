// Vectors of neighbouring channels: 16-byte loads and stores, and their conversion to the type that sums run in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "lighthouse/check.h"
#include "lighthouse/dtype.h"
#include "lighthouse/strided_view.h"

namespace lighthouse {

template <typename T>
struct SumType {
  using type = float;
};
template <>
struct SumType<double> {
  using type = double;
};
/// fp32, or fp64 for fp64 elements.
template <typename T>
using Sum = typename SumType<T>::type;

template <typename T>
__device__ __forceinline__ Sum<T> widen(T value) {
  return static_cast<Sum<T>>(value);
}
template <typename T>
__device__ __forceinline__ T narrow(Sum<T> value) {
  return static_cast<T>(value);
}

/// kSize channels that are loaded and stored at once. Two 16-bit elements stay in one register until they are widened.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Vec {
  using Word = std::conditional_t<sizeof(T) == 2 && kSize % 2 == 0, uint32_t, T>;
  static constexpr int kPerWord = sizeof(Word) / sizeof(T);
  Word word[kSize / kPerWord];

  /// Channel i, which must be known to the compiler.
  __device__ __forceinline__ Sum<T> wide(int i) const {
    if constexpr (kPerWord == 1) {
      return widen(word[i]);
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      return __uint_as_float(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xFFFF0000U);
    } else {
      return widen(T(__ushort_as_half(static_cast<unsigned short>(i % 2 == 0 ? word[i / 2] : word[i / 2] >> 16))));
    }
  }
};

template <typename T, int kSize>
__device__ __forceinline__ Vec<T, kSize> load_vec(const T* source) {
  return *reinterpret_cast<const Vec<T, kSize>*>(source);
}
template <typename T, int kSize>
__device__ __forceinline__ void store_vec(T* target, const Vec<T, kSize>& value) {
  *reinterpret_cast<Vec<T, kSize>*>(target) = value;
}
template <typename T, int kSize>
__device__ __forceinline__ void add_scaled(Sum<T> (&sum)[kSize], const Vec<T, kSize>& value, Sum<T> scale) {
#pragma unroll
  for (int c = 0; c < kSize; ++c) sum[c] += scale * value.wide(c);
}

/// Both halves of a word, rounded to nearest even.
template <typename T>
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}
template <typename T, int kSize>
__device__ __forceinline__ Vec<T, kSize> round_vec(const Sum<T> (&sum)[kSize], Sum<T> scale) {
  Vec<T, kSize> value;
  if constexpr (Vec<T, kSize>::kPerWord == 2) {
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) value.word[i] = narrow_pair<T>(sum[2 * i] * scale, sum[2 * i + 1] * scale);
  } else {
#pragma unroll
    for (int i = 0; i < kSize; ++i) value.word[i] = narrow<T>(sum[i] * scale);
  }
  return value;
}

/// Whether every row of the view starts at a multiple of `bytes`.
template <typename Void>
bool rows_aligned(const BasicView<Void>& view, int64_t element_bytes, int64_t bytes) {
  const auto aligned = [&](int64_t stride) { return stride * element_bytes % bytes == 0; };
  return reinterpret_cast<uintptr_t>(view.data) % bytes == 0 && aligned(view.batch_stride) &&
         aligned(view.seq_stride) && aligned(view.head_stride);
}

/// Calls fn with a value of the element type.
template <typename Fn>
void dispatch_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(float{});
    case DType::kFloat64:
      return fn(double{});
    case DType::kBFloat16:
      return fn(__nv_bfloat16{});
    case DType::kFloat16:
      return fn(__half{});
  }
  LIGHTHOUSE_CHECK(false, "no kernel for dtype number ", static_cast<int>(dtype));
}

}  // namespace lighthouse
