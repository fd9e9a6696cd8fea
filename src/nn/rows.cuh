// Rows of channels that the threads of a warp or block share, 16 bytes at a time.
#pragma once

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/vector.cuh"

namespace lighthouse::nn {

/// Channels of one load.
template <typename T>
inline constexpr int kVec = 16 / sizeof(T);

template <typename T>
using RowVec = Vec<T, kVec<T>>;

/// One store of 16 bytes. A plain assignment becomes four of 4 where the compiler loses sight of the alignment.
template <typename T, int kSize>
__device__ __forceinline__ void store_row(T* target, const Vec<T, kSize>& value) {
  static_assert(sizeof(value) == sizeof(uint4));
  __stwb(reinterpret_cast<uint4*>(target), *reinterpret_cast<const uint4*>(value.word));
}

/// kVec<T> weights, fp32.
template <int kSize>
__device__ __forceinline__ void load_weights(float (&weight)[kSize], const float* source) {
#pragma unroll
  for (int i = 0; i < kSize; i += 4) {
    const auto four = *reinterpret_cast<const float4*>(source + i);
    weight[i] = four.x;
    weight[i + 1] = four.y;
    weight[i + 2] = four.z;
    weight[i + 3] = four.w;
  }
}

/// The sum over the lanes of a warp, the same bits in each.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int mask = 16; mask >= 1; mask /= 2) x += __shfl_xor_sync(~0U, x, mask);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask >= 1; mask /= 2) x = fmaxf(x, __shfl_xor_sync(~0U, x, mask));
  return x;
}

/// The sum over the kWarps warps of a row, the same bits in every thread. More than one warp are a whole block, which
/// calls this once: `shared` is not guarded against a second use.
template <int kWarps>
__device__ __forceinline__ float row_sum(float x) {
  x = warp_sum(x);
  if constexpr (kWarps > 1) {
    __shared__ float shared[kWarps];
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) x += shared[warp];
  }
  return x;
}

/// Calls fn with a value of the element type, fp32 or bf16.
template <typename Fn>
void dispatch_activation(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(float{});
    case DType::kBFloat16:
      return fn(__nv_bfloat16{});
    default:
      LIGHTHOUSE_CHECK(false, "no kernel for dtype number ", static_cast<int>(dtype));
  }
}

/// Blocks along x.
inline unsigned grid_size(int64_t blocks) {
  LIGHTHOUSE_CHECK(blocks < int64_t{1} << 31, "a kernel of ", blocks, " blocks: at most 2^31 - 1 can be launched");
  return static_cast<unsigned>(blocks);
}

}  // namespace lighthouse::nn
