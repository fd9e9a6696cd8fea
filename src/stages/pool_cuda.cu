// Sections (i) and (ii) in one pass over q, k and v: norms, their maxima over windows, and the coarsest means.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/vector.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

constexpr int kThreads = 256;
constexpr int kBatchTokens = 8;  // tokens in flight per thread
constexpr int kLog2MaxChunk =
    6;  // a thread group pools at most 64 tokens; longer windows are finished in a second kernel
constexpr float kNoScore = -std::numeric_limits<float>::infinity();

struct PoolTensor {
  ConstView x;    // [B, N, heads, D]
  void* coarse;   // [B, num_coarse, heads, D], or the fp32/fp64 sums of every chunk where windows are longer than one
  float* maxima;  // [B, heads, num_maxima], or null
  int32_t num_heads;
};

struct PoolArgs {
  PoolTensor tensors[3];
  DevicePlan plan;
  int32_t batch, head_dim;
  int32_t log2_chunk;                  // tokens of a thread group
  int8_t level_of[kLog2MaxChunk + 1];  // level whose windows are 2^i tokens, or 0
  bool whole_windows;                  // a chunk is a coarsest window
};

/// Sums every value[t] over the kLanes lanes of the group. Lane i of the group returns the sum of token i / (kLanes /
/// 8): each exchange halves the tokens that a lane is responsible for.
template <int kLanes, typename Scalar>
__device__ __forceinline__ Scalar transpose_sum(Scalar (&value)[kBatchTokens], int lane) {
  static_assert(kLanes >= kBatchTokens);
#pragma unroll
  for (int half = kBatchTokens / 2, mask = kLanes / 2; half >= 1; half /= 2, mask /= 2) {
    const bool upper = lane & mask;
#pragma unroll
    for (int t = 0; t < half; ++t) {
      const Scalar sent = upper ? value[t] : value[t + half];
      const Scalar kept = upper ? value[t + half] : value[t];
      value[t] = kept + __shfl_xor_sync(~0u, sent, mask);
    }
  }
#pragma unroll
  for (int mask = kLanes / kBatchTokens / 2; mask >= 1; mask /= 2) value[0] += __shfl_xor_sync(~0u, value[0], mask);
  return value[0];
}

/// Window maxima of one chunk, fed eight norms at a time.
template <int kLanes>
struct MaximaWriter {
  const PoolArgs& args;
  const Pyramid& pyramid;
  float* maxima;  // of this (batch, head) and document: maxima_begin of level 1
  int lane;
  float pending[kLog2MaxChunk - 3];  // maxima of completed windows of 8, 16, 32 tokens that wait for their neighbour

  __device__ __forceinline__ void write(int log2_window, float value, int64_t token, bool writer) {
    const int level = args.level_of[log2_window];
    if (!writer || level == 0) return;
    const int64_t entry = token >> log2_window;
    if (entry < pyramid.level_size(level)) maxima[pyramid.slot_offset(level) - pyramid.seq_len + entry] = value;
  }
  /// `norm` is that of token `first` + lane / (kLanes / 8); kNoScore past the end. `step` counts the calls.
  __device__ __forceinline__ void add(float norm, int64_t first, int step) {
    constexpr int kStride = kLanes / kBatchTokens;
    const int64_t token = first + lane / kStride;
    float value = fmaxf(norm, kNoScore);  // NaN counts as -infinity
#pragma unroll
    for (int log2_window = 1; log2_window <= 3; ++log2_window) {
      value = fmaxf(value, __shfl_xor_sync(~0u, value, kStride << (log2_window - 1)));
      write(log2_window, value, token, lane % (kStride << log2_window) == 0);
    }
    bool complete = true;  // the windows of 2^(3 + i) tokens so far: a binary counter over the steps
#pragma unroll
    for (int i = 0; i < kLog2MaxChunk - 3; ++i) {
      const bool second = step >> i & 1;
      const float both = fmaxf(value, pending[i]);
      write(4 + i, both, token, lane == 0 && complete && second);
      if (complete && !second) pending[i] = value;
      value = both;
      complete = complete && second;
    }
  }
};

/// A group of kLanes threads owns one chunk of tokens of one head: a coarsest window or, of a longer one, 2^log2_chunk
/// tokens. A lane owns kVec channels (kChunks times). Each element is read once. grid = (chunk and head blocks,
/// tensors, batch).
template <typename T, int kVec, int kLanes, int kChunks>
__global__ __launch_bounds__(kThreads) void pool_kernel(const __grid_constant__ PoolArgs args) {
  const PoolTensor& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const int lane = threadIdx.x % kLanes;
  const int64_t item = int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes;
  const int64_t chunk = item / tensor.num_heads;
  const int64_t head = item % tensor.num_heads;
  const int log2_split = (plan.num_levels - 1) * plan.log2_pool - args.log2_chunk;  // chunks of a coarsest window
  const bool active = chunk >> log2_split < plan.num_coarse;  // whole warps stay for the exchanges
  const int64_t coarse = active ? chunk >> log2_split : 0;
  const DeviceDocument document = plan.find(&DeviceDocument::coarse_begin, coarse);
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t first = ((coarse - document.coarse_begin) << log2_split | (chunk & ((int64_t{1} << log2_split) - 1)))
                        << args.log2_chunk;
  const int32_t tokens =
      active ? static_cast<int32_t>(min(max(pyramid.seq_len - first, int64_t{0}), int64_t{1} << args.log2_chunk)) : 0;

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const T* x = static_cast<const T*>(tensor.x.data) + batch * tensor.x.batch_stride + head * tensor.x.head_stride +
                 (document.token_begin + first) * tensor.x.seq_stride;
    float* maxima = tensor.maxima == nullptr
                        ? nullptr
                        : tensor.maxima + (batch * tensor.num_heads + head) * plan.num_maxima + document.maxima_begin;
    MaximaWriter<kLanes> writer{args, pyramid, maxima, lane, {}};
    Sum<T> sum[kChunks][kVec] = {};
    for (int step = 0; step == 0 || step << 3 < 1 << args.log2_chunk; ++step) {
      Sum<T> square[kBatchTokens] = {};
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int channel = (c * kLanes + lane) * kVec;
        Vec<T, kVec> value[kBatchTokens] = {};
#pragma unroll
        for (int t = 0; t < kBatchTokens; ++t) {
          if (step * kBatchTokens + t < tokens && channel < args.head_dim) {
            value[t] = load_vec<T, kVec>(x + (step * kBatchTokens + t) * tensor.x.seq_stride + channel);
          }
        }
#pragma unroll
        for (int t = 0; t < kBatchTokens; ++t) {
#pragma unroll
          for (int i = 0; i < kVec; ++i) {
            const Sum<T> wide = widen(value[t].data[i]);
            sum[c][i] += wide;
            square[t] += wide * wide;
          }
        }
      }
      if (tensor.maxima != nullptr) {
        const Sum<T> total = transpose_sum<kLanes>(square, lane);
        const bool real = step * kBatchTokens + lane / (kLanes / kBatchTokens) < tokens;
        writer.add(real ? static_cast<float>(sqrt(total)) : kNoScore, first + step * kBatchTokens, step);
      }
    }
    if (!active) continue;
    const int64_t out =
        ((batch * (int64_t{plan.num_coarse} << log2_split) + chunk) * tensor.num_heads + head) * args.head_dim;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int channel = (c * kLanes + lane) * kVec;
      if (channel >= args.head_dim) continue;
      if (args.whole_windows) {
        const Sum<T> scale = Sum<T>(1) / (1 << args.log2_chunk);
        store_vec(static_cast<T*>(tensor.coarse) + out + channel, round_vec<T, kVec>(sum[c], scale));
      } else {
        for (int i = 0; i < kVec; ++i) static_cast<Sum<T>*>(tensor.coarse)[out + channel + i] = sum[c][i];
      }
    }
  }
}

struct FinishArgs {
  struct {
    const void* sums;  // [B, num_coarse << log2_split, heads, D] fp32 or fp64
    void* coarse;      // [B, num_coarse, heads, D]
    int64_t num_heads;
  } tensors[3];
  int64_t positions;  // B * num_coarse
  int32_t head_dim, log2_split;
  double scale;  // 1 / F
};

/// A thread owns one channel of one coarsest entry whose window was pooled in several chunks. grid = (blocks, tensors).
template <typename T>
__global__ __launch_bounds__(kThreads) void finish_coarse_kernel(const FinishArgs args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const int64_t row_len = tensor.num_heads * args.head_dim;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= args.positions * row_len) return;
  const int64_t position = item / row_len;
  const Sum<T>* sums =
      static_cast<const Sum<T>*>(tensor.sums) + (position << args.log2_split) * row_len + item % row_len;
  Sum<T> sum = 0;
  for (int64_t chunk = 0; chunk < int64_t{1} << args.log2_split; ++chunk) sum += sums[chunk * row_len];
  static_cast<T*>(tensor.coarse)[item] = narrow<T>(sum * static_cast<Sum<T>>(args.scale));
}

struct PoolMaximaArgs {
  const float* scores[2];  // level 0 [B, heads, N]; read for level 1 where not null
  float* maxima[2];        // [B, heads, num_maxima]
  int32_t num_heads[2];
  DevicePlan plan;
  int32_t batch, level;
};

/// A thread owns one entry of one level and takes the maximum of its p children. grid = (entry blocks, 2 scores, B *
/// heads).
__global__ __launch_bounds__(kThreads) void pool_maxima_kernel(const __grid_constant__ PoolMaximaArgs args) {
  const DevicePlan& plan = args.plan;
  const int64_t position = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (position >= plan.num_maxima) return;
  const int which = blockIdx.y;
  const DeviceDocument& document = plan.find(&DeviceDocument::maxima_begin, position);
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t entry = position - plan.maxima_begin(document, args.level);
  if (entry < 0 || entry >= pyramid.level_size(args.level)) return;
  const int64_t begin = entry << plan.log2_pool;
  const int64_t end = min(begin + (1 << plan.log2_pool), pyramid.level_size(args.level - 1));
  for (int64_t head = blockIdx.z; head < int64_t{args.batch} * args.num_heads[which]; head += gridDim.z) {
    float* maxima = args.maxima[which] + head * plan.num_maxima;
    const float* children = args.level == 1 ? args.scores[which] + head * plan.seq_len + document.token_begin
                                            : maxima + plan.maxima_begin(document, args.level - 1);
    float value = kNoScore;
    for (int64_t child = begin; child < end; ++child) value = fmaxf(value, children[child]);
    maxima[position] = value;
  }
}

void launch_pool_maxima(PoolMaximaArgs args, int first_level, CudaStream stream) {
  const int64_t heads = int64_t{args.batch} * std::max(args.num_heads[0], args.num_heads[1]);
  for (args.level = first_level; args.level < args.plan.num_levels; ++args.level) {
    const dim3 grid(static_cast<unsigned>(ceil_div(args.plan.num_maxima, kThreads)), 2, batch_blocks(heads));
    pool_maxima_kernel<<<grid, kThreads, 0, stream>>>(args);
    LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  }
}

template <typename T, int kVec, int kLanes, int kChunks>
void launch_pool(const PoolArgs& args, CudaStream stream) {
  int64_t num_heads = 0;
  for (const PoolTensor& tensor : args.tensors) num_heads = std::max<int64_t>(num_heads, tensor.num_heads);
  const int log2_split = (args.plan.num_levels - 1) * args.plan.log2_pool - args.log2_chunk;
  const int64_t groups = (int64_t{args.plan.num_coarse} << log2_split) * num_heads;
  const dim3 grid(static_cast<unsigned>(ceil_div(groups, kThreads / kLanes)), 3, batch_blocks(args.batch));
  pool_kernel<T, kVec, kLanes, kChunks><<<grid, kThreads, 0, stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

/// The narrowest thread group that holds a head, 16 bytes a lane; single channels where the strides do not allow that.
template <typename T>
void dispatch_pool(const PoolArgs& args, CudaStream stream) {
  constexpr int kVec = 16 / sizeof(T);
  bool aligned = args.head_dim % kVec == 0;
  for (const PoolTensor& tensor : args.tensors) aligned = aligned && rows_aligned(tensor.x, sizeof(T), 16);
  const int vecs = args.head_dim / kVec;
  if (aligned && vecs <= 8) return launch_pool<T, kVec, 8, 1>(args, stream);
  if (aligned && vecs <= 16) return launch_pool<T, kVec, 16, 1>(args, stream);
  if (aligned && vecs <= 32) return launch_pool<T, kVec, 32, 1>(args, stream);
  if (aligned && vecs <= 128) return launch_pool<T, kVec, 32, 4>(args, stream);
  LIGHTHOUSE_CHECK(args.head_dim <= 512, "lighthouse: head_dim ", args.head_dim,
                   " on a CUDA device; up to 512 are compiled");
  launch_pool<T, 1, 32, 16>(args, stream);
}

int coarse_shift(const DevicePlan& plan) { return (plan.num_levels - 1) * plan.log2_pool; }

}  // namespace

int64_t pool_workspace_elements(const DevicePlan& plan, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                                int64_t head_dim, DType dtype) {
  if (coarse_shift(plan) <= kLog2MaxChunk) return 0;
  const int64_t chunks = int64_t{plan.num_coarse} << (coarse_shift(plan) - kLog2MaxChunk);
  return batch * chunks * (num_heads + 2 * num_kv_heads) * head_dim * (dtype == DType::kFloat64 ? 2 : 1);
}

void pool_and_score(const PoolParams& params, const DevicePlan& plan, CudaStream stream) {
  PoolArgs args{};
  args.plan = plan;
  args.batch = static_cast<int32_t>(params.batch);
  args.head_dim = static_cast<int32_t>(params.head_dim);
  args.log2_chunk = std::min(coarse_shift(plan), kLog2MaxChunk);
  args.whole_windows = args.log2_chunk == coarse_shift(plan);
  for (int level = 1; level < plan.num_levels && level * plan.log2_pool <= kLog2MaxChunk; ++level) {
    args.level_of[level * plan.log2_pool] = static_cast<int8_t>(level);
  }
  const auto num_heads = static_cast<int32_t>(params.num_heads);
  const auto num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  args.tensors[0] = {params.q, params.q_coarse, params.max_qk, num_heads};
  args.tensors[1] = {params.k, params.k_coarse, params.max_kq, num_kv_heads};
  args.tensors[2] = {params.v, params.v_coarse, nullptr, num_kv_heads};
  FinishArgs finish{};
  finish.log2_split = coarse_shift(plan) - args.log2_chunk;
  if (!args.whole_windows) {
    auto* sums = reinterpret_cast<char*>(params.workspace);
    for (int i = 0; i < 3; ++i) {
      finish.tensors[i] = {sums, args.tensors[i].coarse, args.tensors[i].num_heads};
      args.tensors[i].coarse = sums;
      sums += (params.batch * plan.num_coarse << finish.log2_split) * args.tensors[i].num_heads * params.head_dim *
              (params.dtype == DType::kFloat64 ? 8 : 4);
    }
  }
  dispatch_dtype(params.dtype, [&](auto element) { dispatch_pool<decltype(element)>(args, stream); });
  if (args.whole_windows) return;

  finish.positions = params.batch * plan.num_coarse;
  finish.head_dim = args.head_dim;
  finish.scale = 1.0 / static_cast<double>(int64_t{1} << coarse_shift(plan));
  const int64_t items = finish.positions * std::max(params.num_heads, params.num_kv_heads) * params.head_dim;
  const dim3 grid(static_cast<unsigned>(ceil_div(items, kThreads)), 3);
  dispatch_dtype(params.dtype,
                 [&](auto element) { finish_coarse_kernel<decltype(element)><<<grid, kThreads, 0, stream>>>(finish); });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  if (params.max_qk == nullptr) return;
  const PoolMaximaArgs maxima{
      {nullptr, nullptr}, {params.max_qk, params.max_kq}, {num_heads, num_kv_heads}, plan, args.batch, 0};
  launch_pool_maxima(maxima, kLog2MaxChunk / plan.log2_pool + 1, stream);
}

void pool_scores(const PoolScoresParams& params, const DevicePlan& plan, CudaStream stream) {
  const auto num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  const PoolMaximaArgs args{{params.s_qk, params.s_kq},         {params.max_qk, params.max_kq},
                            {num_kv_heads, num_kv_heads},       plan,
                            static_cast<int32_t>(params.batch), 0};
  launch_pool_maxima(args, 1, stream);
}

}  // namespace lighthouse
