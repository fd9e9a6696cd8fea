#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "lighthouse/geometry.h"
#include "nn/kernels.h"
#include "nn/rows.cuh"

namespace lighthouse::nn {
namespace {

/// What a row comes to once its maximum and its sum of e^(logit - max) are known. With no logit above -infinity max is
/// kLowest, sum 0, and so both loss and gradient NaN.
constexpr float kLowest = -FLT_MAX;

struct RowResult {
  float max, inverse_sum;  // 1 / sum, NaN for a wrong target
  float loss;

  __device__ RowResult(float max, float sum, float target_logit, bool wrong)
      : max(max), inverse_sum(wrong ? nanf("") : 1.0F / sum), loss(wrong ? nanf("") : max - target_logit + logf(sum)) {}

  /// The gradients of kVec<T> logits; that of the target is at `hit`, or none.
  template <typename T>
  __device__ __forceinline__ RowVec<T> gradient(const RowVec<T>& logits, int64_t hit, float scale) const {
    float grad[kVec<T>];
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      grad[i] = __expf(logits.wide(i) - max) * inverse_sum - (i == hit ? 1.0F : 0.0F);
    }
    return round_vec<T, kVec<T>>(grad, scale);
  }
};

template <typename T>
__device__ __forceinline__ RowVec<T> minus_infinity() {
  RowVec<T> vec;
#pragma unroll
  for (auto& word : vec.word) {
    if constexpr (sizeof(T) == 2) {
      word = 0xFF80FF80U;
    } else {
      word = -INFINITY;
    }
  }
  return vec;
}

constexpr int kWarpThreads = 128;

/// A warp owns a row; a lane keeps kVecs of its vectors in registers, reads them once and writes them once. grid = row
/// blocks.
template <typename T, int kVecs>
__global__ __launch_bounds__(kWarpThreads) void cross_entropy_warp_kernel(
    const __grid_constant__ CrossEntropyParams params) {
  const int64_t row = int64_t{blockIdx.x} * (kWarpThreads / 32) + threadIdx.x / 32;
  if (row >= params.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto vocab = static_cast<int>(params.vocab);
  const auto channel = [&](int v) { return (v * 32 + lane) * kVec<T>; };
  T* logits = static_cast<T*>(params.logits) + row * params.vocab;
  const int64_t target = params.targets[row];
  if (target == params.ignored_target) {
    if (lane == 0) params.losses[row] = 0;
    if (params.scale == nullptr) return;
#pragma unroll
    for (int v = 0; v < kVecs; ++v) {
      if (channel(v) < vocab) store_row(logits + channel(v), RowVec<T>{});
    }
    return;
  }
  const bool wrong = target < 0 || target >= vocab;
  RowVec<T> value[kVecs];
#pragma unroll
  for (int v = 0; v < kVecs; ++v) {
    value[v] = channel(v) < vocab ? load_vec<T, kVec<T>>(logits + channel(v)) : minus_infinity<T>();
  }
  const float target_logit = widen(logits[wrong ? 0 : target]);
  __syncwarp();  // before any lane writes
  float max = kLowest;
#pragma unroll
  for (int v = 0; v < kVecs; ++v) {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) max = fmaxf(max, value[v].wide(i));  // NaN stays for the sum
  }
  max = warp_max(max);
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVecs; ++v) {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) sum += __expf(value[v].wide(i) - max);
  }
  const RowResult result(max, warp_sum(sum), target_logit, wrong);
  if (lane == 0) params.losses[row] = result.loss;
  if (params.scale == nullptr) return;
  const float scale = *params.scale;
#pragma unroll
  for (int v = 0; v < kVecs; ++v) {
    if (channel(v) >= vocab) continue;
    store_row(logits + channel(v), result.gradient<T>(value[v], target - channel(v), scale));
  }
}

/// Of some of a row's logits, sum of e^(logit - max).
struct MaxSum {
  float max, sum;

  /// Rounds alike in both orders: no contraction.
  __device__ __forceinline__ void merge(const MaxSum& other) {
    const float both = fmaxf(max, other.max);
    sum = __fadd_rn(__fmul_rn(sum, __expf(max - both)), __fmul_rn(other.sum, __expf(other.max - both)));
    max = both;
  }
  /// Over the lanes of a warp, the same bits in each.
  __device__ __forceinline__ void merge_lanes() {
#pragma unroll
    for (int mask = 16; mask >= 1; mask /= 2) {
      merge({__shfl_xor_sync(~0U, max, mask), __shfl_xor_sync(~0U, sum, mask)});
    }
  }
};

constexpr int kBatch = 4;  // vectors of a thread at once

/// A block owns a row: a thread reads every kThreads-th vector, once for maximum and sum, and again, from the L2 cache
/// as far as it holds the rows of all blocks, to write its gradient. grid = rows.
template <typename T, int kThreads>
__global__ __launch_bounds__(kThreads) void cross_entropy_block_kernel(
    const __grid_constant__ CrossEntropyParams params) {
  __shared__ MaxSum shared[kThreads / 32];
  const int64_t row = blockIdx.x;
  const int64_t vocab = params.vocab;
  constexpr int64_t kStride = kThreads * kVec<T>;
  const int64_t first = threadIdx.x * kVec<T>;
  T* logits = static_cast<T*>(params.logits) + row * vocab;
  const int64_t target = params.targets[row];
  if (target == params.ignored_target) {
    if (threadIdx.x == 0) params.losses[row] = 0;
    if (params.scale == nullptr) return;
    for (int64_t channel = first; channel < vocab; channel += kStride) store_row(logits + channel, RowVec<T>{});
    return;
  }
  const bool wrong = target < 0 || target >= vocab;
  const float target_logit = widen(logits[wrong ? 0 : target]);
  MaxSum part{kLowest, 0};
  for (int64_t begin = first; begin < vocab; begin += kBatch * kStride) {
    RowVec<T> value[kBatch];
#pragma unroll
    for (int v = 0; v < kBatch; ++v) {
      const int64_t channel = begin + v * kStride;
      value[v] = channel < vocab ? load_vec<T, kVec<T>>(logits + channel) : minus_infinity<T>();
    }
    float max = part.max;
#pragma unroll
    for (int v = 0; v < kBatch; ++v) {
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) max = fmaxf(max, value[v].wide(i));  // NaN stays for the sum
    }
    part.sum *= __expf(part.max - max);
    part.max = max;
#pragma unroll
    for (int v = 0; v < kBatch; ++v) {
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) part.sum += __expf(value[v].wide(i) - max);
    }
  }
  part.merge_lanes();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = part;
  __syncthreads();
  part = threadIdx.x % 32 < kThreads / 32 ? shared[threadIdx.x % 32] : MaxSum{kLowest, 0};
  part.merge_lanes();
  const RowResult result(part.max, part.sum, target_logit, wrong);
  if (threadIdx.x == 0) params.losses[row] = result.loss;
  if (params.scale == nullptr) return;
  const float scale = *params.scale;
  for (int64_t begin = first; begin < vocab; begin += kBatch * kStride) {
    RowVec<T> value[kBatch] = {};
#pragma unroll
    for (int v = 0; v < kBatch; ++v) {
      const int64_t channel = begin + v * kStride;
      if (channel < vocab) value[v] = load_vec<T, kVec<T>>(logits + channel);
    }
#pragma unroll
    for (int v = 0; v < kBatch; ++v) {
      const int64_t channel = begin + v * kStride;
      if (channel < vocab) store_row(logits + channel, result.gradient<T>(value[v], target - channel, scale));
    }
  }
}

template <typename T, int kVecs>
void launch_warps(const CrossEntropyParams& params, CudaStream stream) {
  const unsigned blocks = grid_size(ceil_div(params.rows, kWarpThreads / 32));
  cross_entropy_warp_kernel<T, kVecs><<<blocks, kWarpThreads, 0, stream>>>(params);
}

/// Wide blocks for long rows: of one row a processor at a time, the L2 cache holds 130 of 128,256 bf16.
template <typename T>
void launch(const CrossEntropyParams& params, CudaStream stream) {
  if (params.vocab <= 256) return launch_warps<T, 8 / kVec<T>>(params, stream);
  if (params.vocab <= 1024) return launch_warps<T, 32 / kVec<T>>(params, stream);
  if (params.vocab <= 16384) {
    cross_entropy_block_kernel<T, 256><<<grid_size(params.rows), 256, 0, stream>>>(params);
  } else {
    cross_entropy_block_kernel<T, 1024><<<grid_size(params.rows), 1024, 0, stream>>>(params);
  }
}

}  // namespace

void cross_entropy(const CrossEntropyParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse::nn
