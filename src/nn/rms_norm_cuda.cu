#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "lighthouse/geometry.h"
#include "nn/kernels.h"
#include "nn/rows.cuh"

namespace lighthouse::nn {
namespace {

/// How rows of up to kLanes * kLaneChannels channels are dealt out: to a warp, several of which share a block, or to a
/// block.
template <typename T, int kRowWarps, int kLaneChannels>
struct RowTile {
  using Element = T;
  static constexpr int kWarps = kRowWarps;
  static constexpr int kLanes = kWarps * 32;
  static constexpr int kVecs = kLaneChannels / kVec<T>;  // of a lane
  static constexpr int kThreads = kWarps == 1 ? 128 : kLanes;
  static constexpr int kRows = kThreads / kLanes;  // of a block

  static __device__ __forceinline__ int64_t row() { return int64_t{blockIdx.x} * kRows + threadIdx.x / kLanes; }
  static __device__ __forceinline__ int channel(int vec) {
    return (vec * kLanes + static_cast<int>(threadIdx.x) % kLanes) * kVec<T>;
  }
};

__device__ __forceinline__ float inverse_root(float squares, int64_t channels, float eps) {
  return 1.0F / sqrtf(squares / static_cast<float>(channels) + eps);
}

// What the kernels do with one vector of channels, whether a row lies in registers or is read twice.

template <typename T>
__device__ __forceinline__ RowVec<T> sum_of(const RowVec<T>& x, const RowVec<T>& update) {
  float sum[kVec<T>];
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) sum[i] = x.wide(i) + update.wide(i);
  return round_vec<T, kVec<T>>(sum, 1);
}
template <typename T>
__device__ __forceinline__ void add_squares(float& squares, const RowVec<T>& x) {
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) squares += x.wide(i) * x.wide(i);
}
template <typename T>
__device__ __forceinline__ RowVec<T> normed_by(const RowVec<T>& x, const float (&weight)[kVec<T>], float inverse_rms) {
  float normed[kVec<T>];
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) normed[i] = x.wide(i) * weight[i];
  return round_vec<T, kVec<T>>(normed, inverse_rms);
}
/// weight * scaled, which takes the place of the weight, and its product with x added up.
template <typename T>
__device__ __forceinline__ void weigh(float (&weight)[kVec<T>], const RowVec<T>& scaled, const RowVec<T>& x,
                                      float& dot) {
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) {
    weight[i] *= scaled.wide(i);
    dot += weight[i] * x.wide(i);
  }
}
template <typename T>
__device__ __forceinline__ RowVec<T> gradient_of(float (&weighted)[kVec<T>], const RowVec<T>& residual,
                                                 const RowVec<T>& x, float slope) {
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) weighted[i] += residual.wide(i) - slope * x.wide(i);
  return round_vec<T, kVec<T>>(weighted, 1);
}

/// A lane owns Tile::kVecs vectors of a row, reads them once and writes them once. grid = row blocks.
template <typename Tile>
__global__ __launch_bounds__(Tile::kThreads) void add_norm_kernel(const __grid_constant__ AddNormParams params) {
  using T = typename Tile::Element;
  const int64_t row = Tile::row();
  if (row >= params.rows) return;
  const auto channels = static_cast<int>(params.channels);
  const int64_t begin = row * params.channels;
  RowVec<T> x[Tile::kVecs] = {};
  RowVec<T> update[Tile::kVecs] = {};
  float weight[Tile::kVecs][kVec<T>];
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    if (channel < channels) x[v] = load_vec<T, kVec<T>>(static_cast<const T*>(params.x) + begin + channel);
  }
  if (params.update != nullptr) {
#pragma unroll
    for (int v = 0; v < Tile::kVecs; ++v) {
      const int channel = Tile::channel(v);
      if (channel < channels) update[v] = load_vec<T, kVec<T>>(static_cast<const T*>(params.update) + begin + channel);
    }
  }
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    if (channel < channels) load_weights(weight[v], params.weight + channel);
  }
  float squares = 0;
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    if (params.update != nullptr) {
      x[v] = sum_of<T>(x[v], update[v]);
      if (channel < channels) store_row(static_cast<T*>(params.sum) + begin + channel, x[v]);
    }
    add_squares<T>(squares, x[v]);
  }
  const float inverse_rms = inverse_root(row_sum<Tile::kWarps>(squares), params.channels, params.eps);
  if (threadIdx.x % Tile::kLanes == 0) params.inverse_rms[row] = inverse_rms;
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    const RowVec<T> normed = normed_by<T>(x[v], weight[v], inverse_rms);
    if (channel < channels) store_row(static_cast<T*>(params.normed) + begin + channel, normed);
  }
}

/// The same for any length. A thread reads again what it wrote, or x. grid = rows.
template <typename T>
__global__ __launch_bounds__(256) void add_norm_long_kernel(const __grid_constant__ AddNormParams params) {
  const int64_t row = blockIdx.x;
  const int64_t begin = row * params.channels;
  const int64_t end = begin + params.channels;
  const int64_t first = begin + threadIdx.x * kVec<T>;
  constexpr int kStep = 256 * kVec<T>;
  const T* x = static_cast<const T*>(params.x);
  T* sums = static_cast<T*>(params.sum);
  float squares = 0;
#pragma unroll 4
  for (int64_t element = first; element < end; element += kStep) {
    RowVec<T> value = load_vec<T, kVec<T>>(x + element);
    if (params.update != nullptr) {
      const RowVec<T> update = load_vec<T, kVec<T>>(static_cast<const T*>(params.update) + element);
      value = sum_of<T>(value, update);
      store_row(sums + element, value);
    }
    add_squares<T>(squares, value);
  }
  const float inverse_rms = inverse_root(row_sum<8>(squares), params.channels, params.eps);
  if (threadIdx.x == 0) params.inverse_rms[row] = inverse_rms;
  const T* normed_from = params.update != nullptr ? sums : x;
#pragma unroll 4
  for (int64_t element = first; element < end; element += kStep) {
    const RowVec<T> value = load_vec<T, kVec<T>>(normed_from + element);
    float weight[kVec<T>];
    load_weights(weight, params.weight + (element - begin));
    store_row(static_cast<T*>(params.normed) + element, normed_by<T>(value, weight, inverse_rms));
  }
}

/// As add_norm_kernel: three rows are read once, one is written over the first.
template <typename Tile>
__global__ __launch_bounds__(Tile::kThreads) void norm_backward_kernel(
    const __grid_constant__ NormBackwardParams params) {
  using T = typename Tile::Element;
  const int64_t row = Tile::row();
  if (row >= params.rows) return;
  const auto channels = static_cast<int>(params.channels);
  const int64_t begin = row * params.channels;
  T* grad = static_cast<T*>(params.grad) + begin;
  RowVec<T> x[Tile::kVecs] = {};
  RowVec<T> scaled[Tile::kVecs] = {};
  RowVec<T> residual[Tile::kVecs] = {};
  const float inverse_rms = params.inverse_rms[row];
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    if (channel >= channels) continue;
    scaled[v] = load_vec<T, kVec<T>>(grad + channel);
    x[v] = load_vec<T, kVec<T>>(static_cast<const T*>(params.x) + begin + channel);
  }
  if (params.residual != nullptr) {
#pragma unroll
    for (int v = 0; v < Tile::kVecs; ++v) {
      const int channel = Tile::channel(v);
      if (channel < channels) {
        residual[v] = load_vec<T, kVec<T>>(static_cast<const T*>(params.residual) + begin + channel);
      }
    }
  }
  float weighted[Tile::kVecs][kVec<T>];  // weight * scaled_grad
  float dot = 0;
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) weighted[v][i] = 0;
    if (channel < channels) load_weights(weighted[v], params.weight + channel);
    weigh<T>(weighted[v], scaled[v], x[v], dot);
  }
  const float mean = row_sum<Tile::kWarps>(dot) / static_cast<float>(params.channels);
  const float slope = mean * (inverse_rms * inverse_rms);
#pragma unroll
  for (int v = 0; v < Tile::kVecs; ++v) {
    const int channel = Tile::channel(v);
    const RowVec<T> gradient = gradient_of<T>(weighted[v], residual[v], x[v], slope);
    if (channel < channels) store_row(grad + channel, gradient);
  }
}

/// The same for any length: reads gradient and x twice. grid = rows.
template <typename T>
__global__ __launch_bounds__(256) void norm_backward_long_kernel(const __grid_constant__ NormBackwardParams params) {
  const int64_t row = blockIdx.x;
  const int64_t begin = row * params.channels;
  const int64_t end = begin + params.channels;
  const int64_t first = begin + threadIdx.x * kVec<T>;
  constexpr int kStep = 256 * kVec<T>;
  T* grad = static_cast<T*>(params.grad);
  const T* values = static_cast<const T*>(params.x);
  const float inverse_rms = params.inverse_rms[row];
  float dot = 0;
#pragma unroll 2
  for (int64_t element = first; element < end; element += kStep) {
    const RowVec<T> scaled = load_vec<T, kVec<T>>(grad + element);
    const RowVec<T> x = load_vec<T, kVec<T>>(values + element);
    float weight[kVec<T>];
    load_weights(weight, params.weight + (element - begin));
    weigh<T>(weight, scaled, x, dot);
  }
  const float mean = row_sum<8>(dot) / static_cast<float>(params.channels);
  const float slope = mean * (inverse_rms * inverse_rms);
#pragma unroll 2
  for (int64_t element = first; element < end; element += kStep) {
    const RowVec<T> scaled = load_vec<T, kVec<T>>(grad + element);
    const RowVec<T> x = load_vec<T, kVec<T>>(values + element);
    RowVec<T> residual = {};
    if (params.residual != nullptr) {
      residual = load_vec<T, kVec<T>>(static_cast<const T*>(params.residual) + element);
    }
    float weight[kVec<T>];
    float unused = 0;
    load_weights(weight, params.weight + (element - begin));
    weigh<T>(weight, scaled, x, unused);
    store_row(grad + element, gradient_of<T>(weight, residual, x, slope));
  }
}

constexpr int kSplitWarps = 8;
constexpr int kSplitChannels = 128;  // of a block: 4 a lane
constexpr int kSplitBatch = 4;       // rows of a warp at once

/// A lane owns 4 channels of every 8th row of its block's chunk of rows, reads and writes them once. grid = (channel
/// blocks, chunks).
template <typename T>
__global__ __launch_bounds__(kSplitWarps * 32) void split_norm_kernel(const __grid_constant__ SplitNormParams params) {
  __shared__ float shared[kSplitWarps][kSplitChannels];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t channel = int64_t{blockIdx.x} * kSplitChannels + lane * 4;
  const int64_t chunk_rows = (params.out + gridDim.y - 1) / gridDim.y;
  const int64_t first = blockIdx.y * chunk_rows;
  const int64_t end = min(first + chunk_rows, params.out);
  float sum[4] = {};
  if (channel < params.channels) {
    float weight[4];
    load_weights(weight, params.weight + channel);
    for (int64_t row = first + warp; row < end; row += kSplitBatch * kSplitWarps) {
      Vec<float, 4> grad[kSplitBatch] = {};
      Vec<T, 4> value[kSplitBatch] = {};
#pragma unroll
      for (int step = 0; step < kSplitBatch; ++step) {  // loads before stores, which may alias them for the compiler
        const int64_t own = row + step * kSplitWarps;
        if (own >= end) continue;
        grad[step] = load_vec<float, 4>(params.dmatrix + own * params.channels + channel);
        value[step] = load_vec<T, 4>(static_cast<const T*>(params.matrix) + own * params.channels + channel);
      }
#pragma unroll
      for (int step = 0; step < kSplitBatch; ++step) {
        const int64_t own = row + step * kSplitWarps;
        Vec<float, 4> scaled;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[i] += grad[step].wide(i) * value[step].wide(i);
          scaled.word[i] = grad[step].wide(i) * weight[i];
        }
        if (own < end) store_row(params.dmatrix + own * params.channels + channel, scaled);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) shared[warp][lane * 4 + i] = sum[i];
  __syncthreads();
  const int64_t own = int64_t{blockIdx.x} * kSplitChannels + threadIdx.x;
  if (threadIdx.x >= kSplitChannels || own >= params.channels) return;
  float total = 0;
#pragma unroll
  for (int other = 0; other < kSplitWarps; ++other) total += shared[other][threadIdx.x];
  params.partial[blockIdx.y * params.channels + own] = total;
}

/// A warp adds every 8th chunk of 32 channels. grid = channel blocks.
__global__ __launch_bounds__(kSplitWarps * 32) void finish_norm_kernel(const float* partial, float* dnorm,
                                                                       int64_t chunks, int64_t channels) {
  __shared__ float shared[kSplitWarps][32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t channel = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (channel < channels) {
#pragma unroll 8
    for (int64_t chunk = warp; chunk < chunks; chunk += kSplitWarps) sum += partial[chunk * channels + channel];
  }
  shared[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || channel >= channels) return;
  float total = 0;
#pragma unroll
  for (int other = 0; other < kSplitWarps; ++other) total += shared[other][lane];
  dnorm[channel] = total;
}

/// Calls fn with the narrowest tile that holds a row, or returns false.
template <typename T, typename Fn>
bool dispatch_tile(int64_t channels, const Fn& fn) {
  if (channels <= 256) return fn(RowTile<T, 1, 8>{}), true;
  if (channels <= 512) return fn(RowTile<T, 1, 16>{}), true;
  if (channels <= 1024) return fn(RowTile<T, 1, 32>{}), true;
  if (channels <= 2048) return fn(RowTile<T, 2, 32>{}), true;
  if (channels <= 4096) return fn(RowTile<T, 4, 32>{}), true;
  if (channels <= 8192) return fn(RowTile<T, 16, 16>{}), true;
  return false;
}

}  // namespace

void add_rms_norm(const AddNormParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const bool in_registers = dispatch_tile<T>(params.channels, [&](auto tile) {
      using Tile = decltype(tile);
      add_norm_kernel<Tile><<<grid_size(ceil_div(params.rows, Tile::kRows)), Tile::kThreads, 0, stream>>>(params);
    });
    if (!in_registers) add_norm_long_kernel<T><<<grid_size(params.rows), 256, 0, stream>>>(params);
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

void rms_norm_backward(const NormBackwardParams& params, CudaStream stream) {
  dispatch_activation(params.dtype, [&](auto element) {
    using T = decltype(element);
    const bool in_registers = dispatch_tile<T>(params.channels, [&](auto tile) {
      using Tile = decltype(tile);
      norm_backward_kernel<Tile><<<grid_size(ceil_div(params.rows, Tile::kRows)), Tile::kThreads, 0, stream>>>(params);
    });
    if (!in_registers) norm_backward_long_kernel<T><<<grid_size(params.rows), 256, 0, stream>>>(params);
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

int64_t split_norm_chunks(int64_t out, int64_t channels) {
  // As many as run at once on 132 multiprocessors; the order of the sums follows from it, so it is the same on all
  // cards.
  constexpr int64_t kBlocks = 132 * 4;
  return std::clamp<int64_t>(kBlocks / ceil_div(channels, kSplitChannels), 1, ceil_div(out, kSplitWarps));
}

void split_norm_gradient(const SplitNormParams& params, CudaStream stream) {
  const int64_t chunks = split_norm_chunks(params.out, params.channels);
  const dim3 grid(grid_size(ceil_div(params.channels, kSplitChannels)), static_cast<unsigned>(chunks));
  dispatch_activation(params.dtype, [&](auto element) {
    split_norm_kernel<decltype(element)><<<grid, kSplitWarps * 32, 0, stream>>>(params);
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  finish_norm_kernel<<<grid_size(ceil_div(params.channels, 32)), kSplitWarps * 32, 0, stream>>>(
      params.partial, params.dnorm, chunks, params.channels);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse::nn
