// Norms of token vectors: the score of stock attention's outputs (scorer dilated) and of level 0 where it is asked for.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/window_sum.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

constexpr int kThreads = 128;

struct NormArgs {
  TokenNormParams params;
  FastDivide num_kv_heads;
};

/// A group of kLanes threads owns eight tokens of one KV head and reads the vectors of its query heads once. grid =
/// (token and KV head blocks, 1, batch).
template <typename T, int kVec, int kLanes>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 4 : 8)
    token_norms_kernel(const __grid_constant__ NormArgs args) {
  constexpr int kStride = kLanes / kOctet;  // lanes that end up with the same token
  const TokenNormParams& params = args.params;
  const LaneGroup<kLanes> group;
  const uint32_t item = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const uint32_t octet = args.num_kv_heads.quotient(item);
  const int64_t kv_head = item - octet * args.num_kv_heads.divisor();
  const int64_t heads = params.num_heads / params.num_kv_heads;
  const int64_t token = int64_t{octet} * kOctet;
  const int64_t left = params.seq_len - token;
  const auto count = static_cast<int32_t>(left < kOctet ? left : kOctet);  // below 1 past the end
  for (int64_t batch = blockIdx.z; batch < params.batch; batch += gridDim.z) {
    float best = nanf("");
    for (int64_t head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
      const T* x = static_cast<const T*>(params.x.data) + batch * params.x.batch_stride + token * params.x.seq_stride +
                   head * params.x.head_stride;
      Sum<T> square[kOctet] = {};
      for (int64_t channel = group.lane * kVec; channel < params.head_dim; channel += kLanes * kVec) {
        Octet<T, kVec> values;
        values.load(HeadChannels<T, kVec, kLanes, false>(), x + channel, params.x.seq_stride, 0, count, true, 0xFF);
#pragma unroll
        for (int t = 0; t < kOctet; ++t) {
#pragma unroll
          for (int i = 0; i < kVec; ++i) square[t] += values.value[t].wide(i) * values.value[t].wide(i);
        }
      }
      best = fmaxf(best, static_cast<float>(sqrt(transpose_sum(square, group))));  // NaN only where every head is NaN
    }
    if (group.lane % kStride == 0 && group.lane / kStride < count) {
      params.score[batch * params.score_batch_stride + kv_head * params.score_head_stride +
                   (token + group.lane / kStride) * params.score_seq_stride] = best;
    }
  }
}

template <typename T, int kVec, int kLanes>
void launch(const TokenNormParams& params, CudaStream stream) {
  const int64_t items = ceil_div(params.seq_len, kOctet) * params.num_kv_heads;
  LIGHTHOUSE_CHECK(items < int64_t{1} << 31, "token_norms: ", params.seq_len, " tokens times ", params.num_kv_heads,
                   " KV heads are too many for one kernel; split the heads");
  const NormArgs args{params, FastDivide(static_cast<uint32_t>(params.num_kv_heads))};
  const int64_t blocks = ceil_div(items, kThreads / kLanes);
  token_norms_kernel<T, kVec, kLanes>
      <<<dim3(static_cast<unsigned>(blocks), 1, batch_blocks(params.batch)), kThreads, 0, stream>>>(args);
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
