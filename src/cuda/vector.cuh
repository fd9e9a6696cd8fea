// Vectors of neighbouring channels: 16-byte loads and stores, and their conversion to the type that sums run in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

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

/// kSize channels that are loaded and stored at once.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Vec {
  T data[kSize];
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
  for (int c = 0; c < kSize; ++c) sum[c] += scale * widen(value.data[c]);
}
template <typename T, int kSize>
__device__ __forceinline__ Vec<T, kSize> round_vec(const Sum<T> (&sum)[kSize], Sum<T> scale) {
  Vec<T, kSize> value;
#pragma unroll
  for (int c = 0; c < kSize; ++c) value.data[c] = narrow<T>(sum[c] * scale);
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
