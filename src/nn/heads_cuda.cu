#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/turn.cuh"
#include "lighthouse/geometry.h"
#include "nn/kernels.h"
#include "nn/rows.cuh"

namespace lighthouse::nn {
namespace {

constexpr int kMaxThreads = 128;
constexpr int kHeads = 4;  // of a thread

/// A thread owns one vector of channels of both halves of up to kHeads heads of a token: every num_groups-th head.
/// Threads of a block: tokens, slowest, then groups of heads, then vectors.
struct HeadGrid {
  int64_t batch, seq_len;
  int32_t vecs, num_groups;  // of half a head; of the heads
  int32_t block_tokens;

  HeadGrid(int64_t batch, int64_t seq_len, int64_t num_heads, int64_t half, int64_t vec)
      : batch(batch),
        seq_len(seq_len),
        vecs(static_cast<int32_t>(half / vec)),
        num_groups(static_cast<int32_t>(ceil_div(num_heads, kHeads))),
        block_tokens(std::max(kMaxThreads / (vecs * num_groups), 1)) {}
  unsigned threads() const {
    return static_cast<unsigned>(std::min<int64_t>(ceil_div(vecs * num_groups * block_tokens, 32) * 32, kMaxThreads));
  }
  dim3 blocks() const { return {grid_size(ceil_div(seq_len, block_tokens)), 1, batch_blocks(batch)}; }

  /// Calls body(batch, position, group, vec) for all that this thread owns.
  template <typename Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    const int32_t token_items = vecs * num_groups;
    for (int32_t item = threadIdx.x; item < token_items * block_tokens; item += blockDim.x) {
      const int32_t token = item / token_items;
      const int32_t within = item - token * token_items;
      const int32_t group = within / vecs;
      const int64_t position = int64_t{blockIdx.x} * block_tokens + token;
      if (position >= seq_len) return;
      for (int64_t b = blockIdx.z; b < batch; b += gridDim.z) body(b, position, group, within - group * vecs);
    }
  }
};

/// The two channels of each pair, turned by the angle whose cosine and sine these are, times scale.
template <typename T>
__device__ __forceinline__ void turn(RowVec<T>& first, RowVec<T>& second, const float (&cos)[kVec<T>],
                                     const float (&sin)[kVec<T>], float scale) {
  float low[kVec<T>];
  float high[kVec<T>];
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) {
    low[i] = first.wide(i);
    high[i] = second.wide(i);
    turn_pair(low[i], high[i], cos[i], sin[i]);
  }
  first = round_vec<T, kVec<T>>(low, scale);
  second = round_vec<T, kVec<T>>(high, scale);
}

struct RotateArgs {
  RotateParams params;
  HeadGrid grid;
};

/// Every channel is read and written once, an angle once for kHeads heads.
template <typename T>
__global__ __launch_bounds__(kMaxThreads, 5) void rotate_heads_kernel(const __grid_constant__ RotateArgs args) {
  const RotateParams& params = args.params;
  const auto head_dim = static_cast<int32_t>(params.head_dim);
  const int32_t half = head_dim / 2;
  args.grid.for_each([&](int64_t batch, int64_t position, int32_t group, int32_t vec) {
    const int32_t channel = vec * kVec<T>;
    T* token = static_cast<T*>(params.heads) +
               (batch * params.seq_len + position) * params.num_heads * params.head_dim + channel;
    RowVec<T> first[kHeads] = {};
    RowVec<T> second[kHeads] = {};
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int32_t head = group + h * args.grid.num_groups;
      if (head >= params.num_rotated) continue;
      first[h] = load_vec<T, kVec<T>>(token + head * head_dim);
      second[h] = load_vec<T, kVec<T>>(token + head * head_dim + half);
    }
    float cos[kVec<T>];
    float sin[kVec<T>];
    load_weights(cos, params.cos + position * half + channel);
    load_weights(sin, params.sin + position * half + channel);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int32_t head = group + h * args.grid.num_groups;
      turn<T>(first[h], second[h], cos, sin, 1);
      if (head >= params.num_rotated) continue;
      store_row(token + head * head_dim, first[h]);
      store_row(token + head * head_dim + half, second[h]);
    }
  });
}

struct PackArgs {
  PackHeadsParams params;
  HeadGrid grid;
};

/// Where a head of a token lies in dq, dk or dv.
template <typename T>
__device__ __forceinline__ const T* source_of(const PackHeadsParams& params, int64_t batch, int64_t position,
                                              int64_t head) {
  const auto at = [&](const ConstView& view, int64_t own_head) {
    return static_cast<const T*>(view.data) + batch * view.batch_stride + position * view.seq_stride +
           own_head * view.head_stride;
  };
  if (head < params.num_heads) return at(params.q, head);
  if (head < params.num_heads + params.num_kv_heads) return at(params.k, head - params.num_heads);
  return at(params.v, head - params.num_heads - params.num_kv_heads);
}

/// Every channel is read and written once, an angle once for kHeads heads.
template <typename T>
__global__ __launch_bounds__(kMaxThreads, 5) void pack_heads_kernel(const __grid_constant__ PackArgs args) {
  const PackHeadsParams& params = args.params;
  const int64_t half = params.head_dim / 2;
  const int64_t num_heads = params.num_heads + 2 * params.num_kv_heads;
  const int64_t num_rotated = params.cos == nullptr ? 0 : params.num_heads + params.num_kv_heads;
  args.grid.for_each([&](int64_t batch, int64_t position, int32_t group, int32_t vec) {
    const int64_t channel = vec * kVec<T>;
    const int64_t token = batch * params.seq_len + position;
    T* packed = static_cast<T*>(params.packed) + token * num_heads * params.head_dim + channel;
    RowVec<T> first[kHeads] = {};
    RowVec<T> second[kHeads] = {};
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int64_t head = group + h * args.grid.num_groups;
      if (head >= num_heads) continue;
      const T* source = source_of<T>(params, batch, position, head) + channel;
      first[h] = load_vec<T, kVec<T>>(source);
      second[h] = load_vec<T, kVec<T>>(source + half);
    }
    const float scale = params.inverse_rms[token];
    float cos[kVec<T>] = {};
    float minus_sin[kVec<T>] = {};
    if (num_rotated > 0) {
      load_weights(cos, params.cos + position * half + channel);
      load_weights(minus_sin, params.sin + position * half + channel);
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) minus_sin[i] = -minus_sin[i];
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int64_t head = group + h * args.grid.num_groups;
      if (head >= num_heads) continue;
      if (head < num_rotated) {
        turn<T>(first[h], second[h], cos, minus_sin, scale);
      } else {
        float low[kVec<T>];
        float high[kVec<T>];
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) {
          low[i] = first[h].wide(i);
          high[i] = second[h].wide(i);
        }
        first[h] = round_vec<T, kVec<T>>(low, scale);
        second[h] = round_vec<T, kVec<T>>(high, scale);
      }
      store_row(packed + head * params.head_dim, first[h]);
      store_row(packed + head * params.head_dim + half, second[h]);
    }
  });
}

}  // namespace

void rotate_heads(const RotateParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const HeadGrid grid(params.batch, params.seq_len, params.num_rotated, params.head_dim / 2, kVec<T>);
    rotate_heads_kernel<T><<<grid.blocks(), grid.threads(), 0, stream>>>({params, grid});
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

void pack_head_gradients(const PackHeadsParams& params, CudaStream stream) {
  const int64_t num_heads = params.num_heads + 2 * params.num_kv_heads;
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const HeadGrid grid(params.batch, params.seq_len, num_heads, params.head_dim / 2, kVec<T>);
    pack_heads_kernel<T><<<grid.blocks(), grid.threads(), 0, stream>>>({params, grid});
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse::nn
