// Norms of token vectors: the score of stock attention's outputs (scorer dilated) and of level 0 where it is asked for.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/vector.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

constexpr int kThreads = 256;

/// A group of kLanes threads owns one token of one KV head and reads the vectors of its query heads once.
/// grid = (token and KV head blocks, 1, batch).
template <typename T, int kVec, int kLanes>
__global__ __launch_bounds__(kThreads, 4) void token_norms_kernel(const __grid_constant__ TokenNormParams params) {
  const int lane = threadIdx.x % kLanes;
  const int64_t item = int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes;
  const int64_t token = item / params.num_kv_heads;
  const int64_t kv_head = item % params.num_kv_heads;
  const int64_t group = params.num_heads / params.num_kv_heads;
  const bool real = token < params.seq_len;  // whole warps stay for the exchanges
  for (int64_t batch = blockIdx.z; batch < params.batch; batch += gridDim.z) {
    float best = nanf("");
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const T* x = static_cast<const T*>(params.x.data) + batch * params.x.batch_stride + token * params.x.seq_stride +
                   head * params.x.head_stride;
      Sum<T> square = 0;
      for (int64_t channel = lane * kVec; real && channel < params.head_dim; channel += kLanes * kVec) {
        const Vec<T, kVec> value = load_vec<T, kVec>(x + channel);
#pragma unroll
        for (int i = 0; i < kVec; ++i) square += value.wide(i) * value.wide(i);
      }
#pragma unroll
      for (int mask = kLanes / 2; mask >= 1; mask /= 2) square += __shfl_xor_sync(~0u, square, mask);
      best = fmaxf(best, static_cast<float>(sqrt(square)));  // NaN only where every head is NaN
    }
    if (real && lane == 0) {
      params.score[batch * params.score_batch_stride + kv_head * params.score_head_stride +
                   token * params.score_seq_stride] = best;
    }
  }
}

template <typename T, int kVec, int kLanes>
void launch(const TokenNormParams& params, CudaStream stream) {
  const int64_t blocks = ceil_div(params.seq_len * params.num_kv_heads, kThreads / kLanes);
  token_norms_kernel<T, kVec, kLanes>
      <<<dim3(static_cast<unsigned>(blocks), 1, batch_blocks(params.batch)), kThreads, 0, stream>>>(params);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void token_norms(const TokenNormParams& params, CudaStream stream) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kVec = 16 / sizeof(T);
    if (params.head_dim % kVec != 0 || !rows_aligned(params.x, sizeof(T), 16)) return launch<T, 1, 32>(params, stream);
    if (params.head_dim <= 8 * kVec) return launch<T, kVec, 8>(params, stream);
    if (params.head_dim <= 16 * kVec) return launch<T, kVec, 16>(params, stream);
    launch<T, kVec, 32>(params, stream);
  });
}

}  // namespace lighthouse
