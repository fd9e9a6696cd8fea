#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "lighthouse/geometry.h"
#include "nn/kernels.h"
#include "nn/rows.cuh"

namespace lighthouse::nn {
namespace {

constexpr int kThreads = 256;
constexpr int kForwardBatch = 4;   // vectors of a thread at once, of each row
constexpr int kBackwardBatch = 2;  // three rows: as many bytes on the way

/// 1 / (1 + e^-x): for bf16 by approximations that err by a few units of fp32. 0 and 1 at the ends.
template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return 1.0F / (1.0F + expf(-x));
  } else {
    return __fdividef(1.0F, 1.0F + __expf(-x));
  }
}

/// A block: lanes along a row, x, by rows, y. grid = row blocks.
struct RowBlock {
  dim3 threads;
  unsigned blocks;

  /// As many lanes as own `batch` vectors each; a power of two.
  RowBlock(int64_t rows, int64_t vecs, int64_t batch) {
    const auto wanted = static_cast<uint64_t>(ceil_div(vecs, batch));
    const auto lanes = static_cast<unsigned>(std::min<uint64_t>(std::bit_ceil(wanted), kThreads));
    threads = dim3(lanes, kThreads / lanes);
    blocks = grid_size(ceil_div(rows, threads.y));
  }
};

/// Reads both halves once, writes once.
template <typename T>
__global__ __launch_bounds__(kThreads) void swiglu_kernel(const __grid_constant__ SwigluParams params) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= params.rows) return;
  const T* gates = static_cast<const T*>(params.gate_up) + row * 2 * params.ffn_dim;
  const T* ups = gates + params.ffn_dim;
  T* out = static_cast<T*>(params.out) + row * params.ffn_dim;
  const int64_t stride = int64_t{blockDim.x} * kVec<T>;
  for (int64_t begin = threadIdx.x * kVec<T>; begin < params.ffn_dim; begin += kForwardBatch * stride) {
    RowVec<T> gate[kForwardBatch] = {};
    RowVec<T> up[kForwardBatch] = {};
#pragma unroll
    for (int v = 0; v < kForwardBatch; ++v) {
      const int64_t channel = begin + v * stride;
      if (channel >= params.ffn_dim) continue;
      gate[v] = load_vec<T, kVec<T>>(gates + channel);
      up[v] = load_vec<T, kVec<T>>(ups + channel);
    }
#pragma unroll
    for (int v = 0; v < kForwardBatch; ++v) {
      const int64_t channel = begin + v * stride;
      if (channel >= params.ffn_dim) continue;
      float product[kVec<T>];
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        product[i] = gate[v].wide(i) * sigmoid<T>(gate[v].wide(i)) * up[v].wide(i);
      }
      store_row(out + channel, round_vec<T, kVec<T>>(product, 1));
    }
  }
}

/// Three vectors are read once and written once.
template <typename T>
__global__ __launch_bounds__(kThreads) void swiglu_backward_kernel(
    const __grid_constant__ SwigluBackwardParams params) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= params.rows) return;
  T* gates = static_cast<T*>(params.gate_up) + row * 2 * params.ffn_dim;
  T* ups = gates + params.ffn_dim;
  T* grads = static_cast<T*>(params.grad) + row * params.ffn_dim;
  const float inverse_rms = params.inverse_rms[row];
  const int64_t stride = int64_t{blockDim.x} * kVec<T>;
  for (int64_t begin = threadIdx.x * kVec<T>; begin < params.ffn_dim; begin += kBackwardBatch * stride) {
    RowVec<T> gate[kBackwardBatch] = {};
    RowVec<T> up[kBackwardBatch] = {};
    RowVec<T> grad[kBackwardBatch] = {};
#pragma unroll
    for (int v = 0; v < kBackwardBatch; ++v) {
      const int64_t channel = begin + v * stride;
      if (channel >= params.ffn_dim) continue;
      gate[v] = load_vec<T, kVec<T>>(gates + channel);
      up[v] = load_vec<T, kVec<T>>(ups + channel);
      grad[v] = load_vec<T, kVec<T>>(grads + channel);
    }
#pragma unroll
    for (int v = 0; v < kBackwardBatch; ++v) {
      const int64_t channel = begin + v * stride;
      if (channel >= params.ffn_dim) continue;
      float dgate[kVec<T>];
      float dup[kVec<T>];
      float product[kVec<T>];
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        const float x = gate[v].wide(i);
        const float gated = sigmoid<T>(x);
        const float silu = x * gated;
        const float scaled = grad[v].wide(i) * inverse_rms;
        product[i] = silu * up[v].wide(i);
        dup[i] = scaled * silu;
        dgate[i] = scaled * up[v].wide(i) * gated * (1.0F + x * (1.0F - gated));
      }
      store_row(gates + channel, round_vec<T, kVec<T>>(dgate, 1));
      store_row(ups + channel, round_vec<T, kVec<T>>(dup, 1));
      store_row(grads + channel, round_vec<T, kVec<T>>(product, 1));
    }
  }
}

}  // namespace

void swiglu(const SwigluParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const RowBlock grid(params.rows, params.ffn_dim / kVec<T>, kForwardBatch);
    swiglu_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(params);
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

void swiglu_backward(const SwigluBackwardParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const RowBlock grid(params.rows, params.ffn_dim / kVec<T>, kBackwardBatch);
    swiglu_backward_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(params);
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse::nn
