// The scorer `gla` (section ii): simple gated linear attention of every residue class, of which only norms are kept.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/vector.cuh"
#include "lighthouse/cuda_stages.h"
#include "stages/gla_chunks.cuh"

namespace lighthouse {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBatchTokens = 32;  // tokens between two exchanges of the warps of a block

/// The kCols sums over the lanes, squared and added up; sum c counts if first + c < head_dim. Each exchange halves the
/// sums that a lane is responsible for: it ends up with number lane * kCols / 32.
template <int kCols, typename Scalar>
__device__ __forceinline__ Scalar sum_and_square(Scalar (&value)[kCols], int first, int head_dim) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; kCols >> step > 1; ++step) {
    const int half = kCols >> (step + 1);
    const int mask = 16 >> step;
    const bool upper = lane & mask;
#pragma unroll
    for (int c = 0; c < kCols / 2; ++c) {
      if (c >= half) continue;
      const Scalar sent = upper ? value[c] : value[c + half];
      const Scalar kept = upper ? value[c + half] : value[c];
      value[c] = kept + __shfl_xor_sync(~0u, sent, mask);
    }
  }
#pragma unroll
  for (int mask = 16 / kCols; mask >= 1; mask /= 2) value[0] += __shfl_xor_sync(~0u, value[0], mask);
  const bool real = lane % (32 / kCols) == 0 && first + lane / (32 / kCols) < head_dim;
  Scalar square = real ? value[0] * value[0] : Scalar(0);
#pragma unroll
  for (int mask = 16; mask >= 1; mask /= 2) square += __shfl_xor_sync(~0u, square, mask);
  return square;
}

/// The general path: any type, strides and head_dim up to 32 * kRows, token by token as the CPU stage does it. A warp
/// owns kCols value channels of the state, a lane every 32nd key channel of them. grid = (chains of a residue class and
/// document x B x H x 2 scores x slices of kWarps * kCols channels). Its time is that of the longest chain, N /
/// dilation steps of a load, kRows * kCols multiply-adds and an exchange between lanes: hundreds of clock cycles each.
template <typename T, int kRows, int kCols>
__global__ __launch_bounds__(kThreads, 1) void gla_steps_kernel(const __grid_constant__ GlaArgs args) {
  using Scalar = Sum<T>;
  __shared__ float square[kWarps][kBatchTokens];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const GlaSegments& segments = args.segments;
  const int32_t slices = (args.head_dim + kWarps * kCols - 1) / (kWarps * kCols);
  const int64_t num_chains = int64_t{args.batch} * args.num_heads;
  const int64_t slice = blockIdx.x % slices;
  const int64_t score = blockIdx.x / slices % 2;
  const int64_t chain = blockIdx.x / slices / 2 % num_chains;
  const GlaSegment tokens = segments.segment(blockIdx.x / slices / 2 / num_chains);  // a whole chain
  const int64_t head = chain % args.num_heads;
  const int64_t batch = chain / args.num_heads;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const auto rows = [&](const ConstView& view, int64_t view_head) {
    return static_cast<const T*>(view.data) + batch * view.batch_stride + view_head * view.head_stride;
  };
  const T* q = rows(args.q, head);
  const T* k = rows(args.k, kv_head);
  const T* v = rows(args.v, kv_head);
  const float* gate = args.gate + batch * args.gate_batch_stride + head * args.gate_head_stride;
  float* squares = args.squares + ((slice * 2 + score) * num_chains + chain) * segments.seq_len;
  const int first_column = static_cast<int>(slice * kWarps + warp) * kCols;

  Scalar state[kRows][kCols] = {};
  for (int32_t first = 0; first < tokens.num_tokens; first += kBatchTokens) {
    const int count = min(tokens.num_tokens - first, kBatchTokens);
    for (int i = 0; i < count; ++i) {
      const int64_t token = tokens.first_token + (first + i) * segments.dilation;
      const T* query = score == 0 ? q + token * args.q.seq_stride : k + token * args.k.seq_stride;
      const T* key = score == 0 ? k + token * args.k.seq_stride : q + token * args.q.seq_stride;
      const Scalar decay = exp(static_cast<Scalar>(gate[token * args.gate_seq_stride]));
      Scalar value[kCols];
#pragma unroll
      for (int c = 0; c < kCols; ++c) {
        value[c] =
            first_column + c < args.head_dim ? widen(v[token * args.v.seq_stride + first_column + c]) : Scalar(0);
      }
      Scalar output[kCols] = {};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int channel = r * 32 + lane;
        if (channel >= args.head_dim) continue;
        const Scalar key_element = widen(key[channel]);
        const Scalar query_element = widen(query[channel]);
#pragma unroll
        for (int c = 0; c < kCols; ++c) {
          state[r][c] = decay * state[r][c] + key_element * value[c];
          output[c] += query_element * state[r][c];
        }
      }
      const Scalar sum = sum_and_square<kCols>(output, first_column, args.head_dim);
      if (lane == 0) square[warp][i] = static_cast<float>(sum * static_cast<Scalar>(args.scale * args.scale));
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) {
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += square[w][threadIdx.x];
      squares[tokens.first_token + (first + static_cast<int>(threadIdx.x)) * segments.dilation] = sum;
    }
    __syncthreads();
  }
}

/// In place, what the segments of a chain add to the state becomes the state after each. A thread owns four elements of
/// the state of one (chain, batch, head, score). grid = (states x element blocks, B x H up to 65535, 2 scores); blocks
/// of states that are not the first of a chain have nothing to do.
template <typename Tile>
__global__ __launch_bounds__(kThreads) void gla_scan_kernel(const __grid_constant__ GlaArgs args) {
  constexpr int kBlocks = Tile::kStateElements / (4 * kThreads);
  const int64_t first_state = blockIdx.x / kBlocks;
  const int64_t count = args.segments.chain_states(first_state);
  const int64_t num_chains = int64_t{args.batch} * args.num_heads;
  for (int64_t chain = blockIdx.y; chain < num_chains; chain += gridDim.y) {
    float4 state = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = (first_state + i * args.segments.dilation) * num_chains + chain;
      auto* element = reinterpret_cast<float4*>(args.states + (index * 2 + blockIdx.z) * Tile::kStateElements) +
                      blockIdx.x % kBlocks * kThreads + threadIdx.x;
      const float4 added = *element;
      if (i > 0) {
        const float decay = fast_exp2(args.decays[index]);
        state.x = decay * state.x + added.x;
        state.y = decay * state.y + added.y;
        state.z = decay * state.z + added.z;
        state.w = decay * state.w + added.w;
      } else {
        state = added;
      }
      *element = state;
    }
  }
}

struct GlaFinishArgs {
  const float* squares;                      // [slices, 2, B, H, N]
  float* scores[2];                          // [B, H_kv, N]
  int64_t seq_len, num_scores, num_squares;  // N, B * H_kv * N, B * H * N
  int32_t group, slices;                     // query heads of a KV head
};

/// A thread owns one score. grid = (score blocks, 2).
__global__ __launch_bounds__(kThreads) void gla_finish_kernel(const __grid_constant__ GlaFinishArgs args) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= args.num_scores) return;
  const int64_t kv_row = item / args.seq_len;  // batch and KV head
  const float* squares =
      args.squares + blockIdx.y * args.num_squares + kv_row * args.group * args.seq_len + item % args.seq_len;
  float best = nanf("");
  for (int32_t head = 0; head < args.group; ++head) {
    float sum = 0;
    for (int32_t slice = 0; slice < args.slices; ++slice) {
      sum += squares[slice * 2 * args.num_squares + head * args.seq_len];
    }
    best = fmaxf(best, sqrtf(sum));  // NaN only where every head is NaN
  }
  args.scores[blockIdx.y][item] = best;
}

unsigned checked_blocks(int64_t blocks) {
  LIGHTHOUSE_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "lighthouse: scorer gla needs ", blocks,
                   " blocks for these documents, dilation and heads; a launch has at most 2^31 - 1");
  return static_cast<unsigned>(blocks);
}

template <typename Tile, bool kOutputs>
void launch_chunks(const GlaArgs& args, CudaStream stream) {
  const int64_t blocks = args.segments.num_items() * args.batch * args.num_heads * 2;
  const size_t shared_bytes = kOutputs ? sizeof(typename Tile::Shared) : offsetof(typename Tile::Shared, query);
  const auto kernel = gla_chunks_kernel<Tile, kOutputs>;
  LIGHTHOUSE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  kernel<<<checked_blocks(blocks), Tile::kThreads, shared_bytes, stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

template <typename Tile>
void launch_tensor_cores(const GlaArgs& args, CudaStream stream) {
  if (args.segments.num_states() > 0) {
    launch_chunks<Tile, false>(args, stream);
    const int64_t chains = int64_t{args.batch} * args.num_heads;
    const int64_t blocks = args.segments.num_states() * (Tile::kStateElements / (4 * kThreads));
    const dim3 grid(checked_blocks(blocks), batch_blocks(chains), 2);
    gla_scan_kernel<Tile><<<grid, kThreads, 0, stream>>>(args);
    LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  }
  launch_chunks<Tile, true>(args, stream);
}

/// kRows and kCols of gla_steps_kernel.
struct StepsShape {
  int rows, cols;
};
StepsShape steps_shape(int64_t head_dim) {
  if (head_dim <= 32) return {1, 8};
  if (head_dim <= 128) return {4, 16};
  LIGHTHOUSE_CHECK(head_dim <= 512, "lighthouse: scorer gla with head_dim ", head_dim,
                   " on a CUDA device; up to 512 are compiled");
  return {16, 4};
}

template <typename T, int kRows, int kCols>
void launch_steps(GlaArgs args, int64_t slices, CudaStream stream) {
  args.segments.segment_len = args.segments.seq_len;  // a chain is one segment
  const int64_t blocks = args.segments.num_items() * args.batch * args.num_heads * 2 * slices;
  gla_steps_kernel<T, kRows, kCols><<<checked_blocks(blocks), kThreads, 0, stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

bool fits_tensor_cores(DType dtype, int64_t head_dim) {
  return (dtype == DType::kBFloat16 || dtype == DType::kFloat16) && head_dim % 8 == 0 && head_dim <= 128;
}

int64_t num_slices(DType dtype, int64_t head_dim) {
  return fits_tensor_cores(dtype, head_dim) ? 1 : ceil_div(head_dim, kWarps * steps_shape(head_dim).cols);
}

GlaSegments make_segments(int64_t batch, int64_t seq_len, int64_t num_heads, int64_t dilation, int64_t num_documents) {
  const int64_t segment_len = gla_segment_len(batch, seq_len, num_heads);
  return {nullptr, static_cast<int32_t>(num_documents), seq_len, std::min(dilation, seq_len), segment_len};
}

struct Workspace {
  int64_t states, decays, squares;  // floats
};
Workspace workspace_of(const GlaSegments& segments, int64_t batch, int64_t num_heads, int64_t head_dim, DType dtype) {
  const int64_t dim = head_dim <= 64 ? 64 : 128;
  const int64_t states = fits_tensor_cores(dtype, head_dim) ? segments.num_states() * batch * num_heads : 0;
  return {states * 2 * dim * dim, states, num_slices(dtype, head_dim) * 2 * batch * num_heads * segments.seq_len};
}

template <typename T>
void dispatch(const GlaArgs& args, int64_t slices, CudaStream stream) {
  if constexpr (sizeof(T) == 2) {
    const auto aligned = [](const ConstView& view) { return rows_aligned(view, sizeof(T), 16); };
    if (args.head_dim % 8 == 0 && args.head_dim <= 128 && aligned(args.q) && aligned(args.k) && aligned(args.v)) {
      if (args.head_dim <= 64) return launch_tensor_cores<GlaTile<T, 64>>(args, stream);
      return launch_tensor_cores<GlaTile<T, 128>>(args, stream);
    }
  }
  switch (steps_shape(args.head_dim).rows) {
    case 1:
      return launch_steps<T, 1, 8>(args, slices, stream);
    case 4:
      return launch_steps<T, 4, 16>(args, slices, stream);
    case 16:
      return launch_steps<T, 16, 4>(args, slices, stream);
  }
  LIGHTHOUSE_CHECK(false, "lighthouse: scorer gla has no kernel for head_dim ", args.head_dim);
}

}  // namespace

int64_t gla_workspace_elements(int64_t batch, int64_t seq_len, int64_t num_heads, int64_t head_dim, int64_t dilation,
                               DType dtype) {
  const GlaSegments segments = make_segments(batch, seq_len, num_heads, dilation, 1);
  const Workspace workspace = workspace_of(segments, batch, num_heads, head_dim, dtype);
  return workspace.states + workspace.decays + workspace.squares;
}

void gla_scores(const GlaScoreParams& params, const int32_t* bounds, float* workspace, CudaStream stream) {
  const int64_t num_documents = params.cu_seqlens.empty() ? 1 : static_cast<int64_t>(params.cu_seqlens.size()) - 1;
  GlaSegments segments = make_segments(params.batch, params.seq_len, params.num_heads, params.dilation, num_documents);
  if (num_documents > 1) segments.bounds = bounds;
  const Workspace parts = workspace_of(segments, params.batch, params.num_heads, params.head_dim, params.dtype);
  GlaArgs args{params.q,
               params.k,
               params.v,
               params.gate,
               params.gate_batch_stride,
               params.gate_seq_stride,
               params.gate_head_stride,
               segments,
               static_cast<int32_t>(params.batch),
               static_cast<int32_t>(params.num_heads),
               static_cast<int32_t>(params.num_kv_heads),
               static_cast<int32_t>(params.head_dim),
               1.0f / std::sqrt(static_cast<float>(params.head_dim)),
               workspace + parts.states + parts.decays,
               workspace,
               workspace + parts.states};
  const int64_t slices = num_slices(params.dtype, params.head_dim);
  dispatch_dtype(params.dtype, [&](auto element) { dispatch<decltype(element)>(args, slices, stream); });

  const GlaFinishArgs finish{args.squares,
                             {params.s_qk, params.s_kq},
                             params.seq_len,
                             params.batch * params.num_kv_heads * params.seq_len,
                             params.batch * params.num_heads * params.seq_len,
                             static_cast<int32_t>(params.num_heads / params.num_kv_heads),
                             static_cast<int32_t>(slices)};
  const dim3 grid(checked_blocks(ceil_div(finish.num_scores, kThreads)), 2);
  gla_finish_kernel<<<grid, kThreads, 0, stream>>>(finish);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse
