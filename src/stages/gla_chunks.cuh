// The tensor-core kernel of the scorer `gla`: bf16 or fp16, head_dim up to 128.
//
// Both scores are the same computation with q and k exchanged; the block that computes s_qk takes q as queries and k as
// keys, the block of s_kq the reverse. Within a chunk of 64 tokens of a chain, with G the inclusive sum of the gates,
//   o_i = exp(G_i) q_i S + sum over j <= i of exp(G_i - G_j) (q_i k_j) v_j
//   S  <- exp(G_63) S + sum over j of exp(G_63 - G_j) k_j v_j^T
// where S, the state, stays in registers. A first launch sums what every segment adds to the state, a scan turns that
// into the states before the segments, and a second launch computes the outputs' norms.
//
// Rounding: sums are fp32; the inputs of the products that are not given (S, exp(G_i - G_j) (q_i k_j), exp(G_63 - G_j)
// v_j) are rounded to the element type, as stock chunked implementations do: a relative 2^-9 at most in bf16 per term,
// independent over channels, which leaves 1e-3 of an output and about 1e-4 of its norm. S in fp16 is scaled by a power
// of two first, so that it cannot overflow.
//
// Exponents are sums of gates between two tokens, at most 0. A gate counts as at least kMinLogDecay, where 2^x is 0
// already, so that differences stay finite. NaN reaches no token before its own: the triangle is cut by selection, and
// a chunk whose V holds NaN or infinity, of which 0 times would be NaN, is done again with zeros in their place; its
// scores, and all later ones of the chain, are NaN from the first such token on.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/mma.cuh"
#include "stages/gla_tile.cuh"

namespace lighthouse {

/// Writes the weights of the ten 16x16 blocks on and under the diagonal: warp 0 takes (0, 0) and (3, 3), warp 1 row 1,
/// warps 2 and 3 columns 0 to 2 of their rows.
template <typename Tile>
__device__ __forceinline__ void compute_weights(typename Tile::Shared& shared, int stage, float scale) {
  using T = typename Tile::T;
  const int lane = volatile_lane();
  const int warp = threadIdx.x / 32;
  const int blocks = warp < 2 ? 2 : 3;
  const auto row_tile = [&](int block) { return warp == 0 && block == 1 ? 3 : warp; };
  const auto column_tile = [&](int block) { return warp == 0 && block == 1 ? 3 : block; };
  float product[3][2][4] = {};
#pragma unroll
  for (int c = 0; c < Tile::kKeyTiles; ++c) {
    uint32_t a[4];
#pragma unroll
    for (int block = 0; block < 3; ++block) {
      if (block >= blocks) continue;
      if (block == 0 || warp == 0) {
        load_down<false, Tile::kUnits>(a, shared.query[stage], 16 * row_tile(block), 2 * c, lane);
      }
      uint32_t b[4];
      load_across<false, Tile::kUnits>(b, shared.key[stage], 16 * column_tile(block), 2 * c, lane);
      multiply_add<T>(product[block][0], a, b[0], b[1]);
      multiply_add<T>(product[block][1], a, b[2], b[3]);
    }
  }
  const float* log_decay = shared.log_decay[stage];
#pragma unroll
  for (int block = 0; block < 3; ++block) {
    if (block >= blocks) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 16 * row_tile(block) + 8 * half + lane / 4;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int column = 16 * column_tile(block) + 8 * n + 2 * (lane % 4);
        float weight[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float difference = log_decay[row] - log_decay[column + i];
          const float decay = fast_exp2(difference > 0 ? 0.0f : difference);  // > 0 past the diagonal; NaN stays
          weight[i] = column + i <= row ? product[block][n][2 * half + i] * decay * scale : 0.0f;
        }
        T* target = shared.weight + 8 * swizzled_unit(row, column / 8, Tile::kChunk / 8) + column % 8;
        *reinterpret_cast<uint32_t*>(target) = pack<T>(weight[0], weight[1]);
      }
    }
  }
}

/// A power of two that brings the largest element of the warp's state to about 2^14; 1 in bf16, whose range is fp32's.
template <typename Tile>
__device__ __forceinline__ float state_scale(const GlaState<Tile>& state) {
  if constexpr (!std::is_same_v<typename Tile::T, __half>) return 1.0f;
  float largest = 0;
#pragma unroll
  for (int m = 0; m < Tile::kValueTiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * Tile::kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(state[m][n][i]));
    }
  }
#pragma unroll
  for (int mask = 16; mask >= 1; mask /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, mask));
  const float scale = fast_exp2(14.0f - floorf(__log2f(largest)));
  return scale > 0x1p-100f && scale < 0x1p+100f ? scale : 1.0f;  // zeros, infinities
}

template <typename Tile>
__device__ __forceinline__ void zero(GlaOutput<Tile>& out) {
#pragma unroll
  for (int row_tile = 0; row_tile < Tile::kRowTiles; ++row_tile) {
#pragma unroll
    for (int n = 0; n < 2 * Tile::kValueTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[row_tile][n][i] = 0;
    }
  }
}

/// out = exp(G_i) q_i S / sqrt(D).
template <typename Tile>
__device__ __forceinline__ void read_state(GlaOutput<Tile>& out, const GlaState<Tile>& state,
                                           const typename Tile::Shared& shared, int stage, float scale) {
  using T = typename Tile::T;
  const int lane = volatile_lane();
  const float narrow = state_scale<Tile>(state);
  zero<Tile>(out);
#pragma unroll
  for (int c = 0; c < Tile::kKeyTiles; ++c) {
    uint32_t b[2 * Tile::kValueTiles][2];  // 16 key channels by 8 value channels each
#pragma unroll
    for (int n = 0; n < 2 * Tile::kValueTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float* pair = state[n / 2][2 * c + i] + n % 2 * 2;
        b[n][i] = pack<T>(pair[0] * narrow, pair[1] * narrow);
      }
    }
#pragma unroll
    for (int row_tile = 0; row_tile < Tile::kRowTiles; ++row_tile) {
      uint32_t a[4];
      load_down<false, Tile::kUnits>(a, shared.query[stage], 16 * row_tile, 2 * c, lane);
#pragma unroll
      for (int n = 0; n < 2 * Tile::kValueTiles; ++n) multiply_add<T>(out[row_tile][n], a, b[n][0], b[n][1]);
    }
  }
  const int row = lane / 4;
  scale /= narrow;
#pragma unroll
  for (int row_tile = 0; row_tile < Tile::kRowTiles; ++row_tile) {
    const float upper = fast_exp2(shared.log_decay[stage][16 * row_tile + row]) * scale;
    const float lower = fast_exp2(shared.log_decay[stage][16 * row_tile + row + 8]) * scale;
#pragma unroll
    for (int n = 0; n < 2 * Tile::kValueTiles; ++n) {
      out[row_tile][n][0] *= upper;
      out[row_tile][n][1] *= upper;
      out[row_tile][n][2] *= lower;
      out[row_tile][n][3] *= lower;
    }
  }
}

/// Puts zeros in place of the NaNs and infinities of V in the warp's columns, which no other warp reads, and notes
/// the first token of the chunk that held one.
template <typename Tile>
__device__ __forceinline__ void remove_non_finite(typename Tile::Shared& shared, int stage) {
  constexpr uint32_t kBits = kExponentBits<typename Tile::T>;
  constexpr int kWarpUnits = Tile::kColumns / 8;
  auto* units = reinterpret_cast<uint4*>(shared.value[stage]);
  int token = Tile::kChunk;
#pragma unroll 1
  for (int i = Tile::kChunk * kWarpUnits - 1 - threadIdx.x % 32; i >= 0; i -= 32) {
    const int row = i / kWarpUnits;
    auto* pair = reinterpret_cast<uint32_t*>(
        units + swizzled_unit(row, threadIdx.x / 32 * kWarpUnits + i % kWarpUnits, Tile::kUnits));
#pragma unroll 1
    for (int p = 0; p < 4; ++p) {
      const bool low = (pair[p] & kBits) == kBits;
      const bool high = (pair[p] >> 16 & kBits) == kBits;
      if (low || high) token = row;
      pair[p] &= (low ? 0u : 0xFFFFu) | (high ? 0u : 0xFFFF0000u);
    }
  }
  shared.first_nan[threadIdx.x / 32] = __reduce_min_sync(~0u, token);
  __syncwarp();
}

/// out += weight V. Returns whether V is finite in the warp's columns.
template <typename Tile>
__device__ __forceinline__ bool add_chunk(GlaOutput<Tile>& out, const typename Tile::Shared& shared, int stage) {
  using T = typename Tile::T;
  const int lane = volatile_lane();
  const int warp = threadIdx.x / 32;
  uint32_t probe = 0;
#pragma unroll
  for (int j = 0; j < Tile::kRowTiles; ++j) {
    uint32_t v[Tile::kValueTiles][4];
#pragma unroll
    for (int m = 0; m < Tile::kValueTiles; ++m) {
      load_down<true, Tile::kUnits>(v[m], shared.value[stage], 16 * j, warp * Tile::kColumns / 8 + 2 * m, lane);
#pragma unroll
      for (int i = 0; i < 4; ++i) probe_finite<T>(probe, v[m][i]);
    }
#pragma unroll
    for (int row_tile = j; row_tile < Tile::kRowTiles; ++row_tile) {
      uint32_t a[4];
      load_down<false, Tile::kChunk / 8>(a, shared.weight, 16 * row_tile, 2 * j, lane);
#pragma unroll
      for (int m = 0; m < Tile::kValueTiles; ++m) {
        multiply_add<T>(out[row_tile][2 * m], a, v[m][0], v[m][1]);
        multiply_add<T>(out[row_tile][2 * m + 1], a, v[m][2], v[m][3]);
      }
    }
  }
  return !__any_sync(~0u, probe != 0);
}

/// The squares of the outputs, added over the warp's columns; unless V was finite, NaN from token first_nan of the
/// chunk on.
template <typename Tile>
__device__ __forceinline__ void sum_squares(const GlaOutput<Tile>& out, bool finite, typename Tile::Shared& shared) {
  const int first_nan = finite ? Tile::kChunk : shared.first_nan[threadIdx.x / 32];
  const int lane = volatile_lane();
#pragma unroll
  for (int row_tile = 0; row_tile < Tile::kRowTiles; ++row_tile) {
    float upper = 0, lower = 0;
#pragma unroll
    for (int n = 0; n < 2 * Tile::kValueTiles; ++n) {
      const float* x = out[row_tile][n];
      upper += x[0] * x[0] + x[1] * x[1];
      lower += x[2] * x[2] + x[3] * x[3];
    }
#pragma unroll
    for (int mask = 2; mask >= 1; mask /= 2) {
      upper += __shfl_xor_sync(~0u, upper, mask);
      lower += __shfl_xor_sync(~0u, lower, mask);
    }
    if (lane % 4 == 0) {
      const int row = 16 * row_tile + lane / 4;
      shared.square[threadIdx.x / 32][row] = row < first_nan ? upper : nanf("");
      shared.square[threadIdx.x / 32][row + 8] = row + 8 < first_nan ? lower : nanf("");
    }
  }
}

/// A thread of the first 64 writes one token's sum over all warps.
template <typename Tile>
__device__ __forceinline__ void write_squares(const typename Tile::Shared& shared, int first) {
  const int row = threadIdx.x;
  if (row >= shared.block.rows_from(first)) return;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < Tile::kWarps; ++warp) sum += shared.square[warp][row];
  shared.block.squares[(first + row) * shared.block.dilation] = sum;
}

/// state = exp(G_63) state + sum of exp(G_63 - G_j) k_j v_j^T; NaN if V was not finite.
template <typename Tile>
__device__ __forceinline__ void update_state(GlaState<Tile>& state, bool finite, const typename Tile::Shared& shared,
                                             int stage) {
  using T = typename Tile::T;
  const int lane = volatile_lane();
  const float* log_decay = shared.log_decay[stage];
  const float end = log_decay[Tile::kChunk - 1];
  const float decay = finite ? fast_exp2(end) : nanf("");
#pragma unroll
  for (int m = 0; m < Tile::kValueTiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * Tile::kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) state[m][n][i] *= decay;
    }
  }
#pragma unroll 2
  for (int j = 0; j < Tile::kRowTiles; ++j) {
    const int token = 16 * j + 2 * (lane % 4);
    uint32_t a[Tile::kValueTiles][4];
#pragma unroll
    for (int m = 0; m < Tile::kValueTiles; ++m) {
      const int unit = threadIdx.x / 32 * (Tile::kColumns / 8) + 2 * m;
      load_across<true, Tile::kUnits>(a[m], shared.value[stage], 16 * j, unit, lane);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = fast_exp2(end - log_decay[token + 8 * half]);
      const float second = fast_exp2(end - log_decay[token + 8 * half + 1]);
#pragma unroll
      for (int m = 0; m < Tile::kValueTiles; ++m) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          const float2 v = unpack<T>(a[m][i]);
          a[m][i] = pack<T>(v.x * first, v.y * second);
        }
      }
    }
#pragma unroll
    for (int c = 0; c < Tile::kKeyTiles; ++c) {
      uint32_t b[4];
      load_down<true, Tile::kUnits>(b, shared.key[stage], 16 * j, 2 * c, lane);
#pragma unroll
      for (int m = 0; m < Tile::kValueTiles; ++m) {
        multiply_add<T>(state[m][2 * c], a[m], b[0], b[1]);
        multiply_add<T>(state[m][2 * c + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Calls fn(accumulator, offset) for every accumulator of a lane; 16 bytes at states + offset belong to it.
template <typename Tile, typename State, typename Fn>
__device__ __forceinline__ void for_each_accumulator(State& state, const Fn& fn) {
#pragma unroll
  for (int m = 0; m < Tile::kValueTiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * Tile::kKeyTiles; ++n) {
      fn(state[m][n], ((m * 2 * Tile::kKeyTiles + n) * Tile::kThreads + threadIdx.x) * 4);
    }
  }
}

template <typename T>
__device__ GlaBlock<T> make_block(const GlaArgs& args, const GlaSegment& segment, int64_t chain, int score) {
  const int64_t head = chain % args.num_heads;
  const int64_t batch = chain / args.num_heads;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const auto rows = [&](const ConstView& view, int64_t view_head) {
    return GlaRows<T>{static_cast<const T*>(view.data) + batch * view.batch_stride + view_head * view.head_stride +
                          segment.first_token * view.seq_stride,
                      view.seq_stride * args.segments.dilation};
  };
  const GlaRows<T> q = rows(args.q, head);
  const GlaRows<T> k = rows(args.k, kv_head);
  const float* gate = args.gate + batch * args.gate_batch_stride + head * args.gate_head_stride +
                      segment.first_token * args.gate_seq_stride;
  const int64_t num_chains = int64_t{args.batch} * args.num_heads;
  return {score == 0 ? k : q,
          rows(args.v, kv_head),
          score == 0 ? q : k,
          {gate, args.gate_seq_stride * args.segments.dilation},
          args.squares + (score * num_chains + chain) * args.segments.seq_len + segment.first_token,
          args.segments.dilation,
          segment.num_tokens,
          args.head_dim,
          segment.index > 0};
}

/// A block owns one segment of one (batch, query head) and one of the two scores; it reads the segment once. A warp
/// owns a quarter of the value channels of the state and the outputs. kOutputs: writes the squares of every token, from
/// the state before the segment; else what the segment adds to the state, unless it is the last of its chain. grid =
/// (items x B x H x 2).
template <typename Tile, bool kOutputs>
__global__ __launch_bounds__(Tile::kThreads,
                             Tile::kMinBlocks) void gla_chunks_kernel(const __grid_constant__ GlaArgs args) {
  extern __shared__ uint4 dynamic_shared[];
  auto& shared = *reinterpret_cast<typename Tile::Shared*>(dynamic_shared);
  const GlaBlock<typename Tile::T>& block = shared.block;
  const int score = blockIdx.x % 2;
  const int64_t num_chains = int64_t{args.batch} * args.num_heads;
  const int64_t chain = blockIdx.x / 2 % num_chains;
  const GlaSegment segment = args.segments.segment(blockIdx.x / 2 / num_chains);
  if (segment.num_tokens == 0 || (!kOutputs && segment.last)) return;
  if (threadIdx.x == 0) shared.block = make_block<typename Tile::T>(args, segment, chain, score);
  __syncthreads();

  load_chunk<Tile, kOutputs>(shared, 0, 0);
  const bool has_gates = threadIdx.x < 32;
  if (has_gates) {
    load_gates(shared.gate, block, 0);
    wait_for_copies();
    sum_gates(shared.gate, shared.log_decay[0]);
    load_gates(shared.gate, block, Tile::kChunk);
  }
  GlaState<Tile> state = {};
  if (kOutputs && block.has_state) {
    const float* source = args.states + ((segment.state_in * num_chains + chain) * 2 + score) * Tile::kStateElements;
    for_each_accumulator<Tile>(state, [&](float(&x)[4], int offset) {
      const float4 read = *reinterpret_cast<const float4*>(source + offset);
      x[0] = read.x, x[1] = read.y, x[2] = read.z, x[3] = read.w;
    });
  }

  float log_decay = 0;  // over the segment so far
  int first = 0;
  for (int stage = 0;; first += Tile::kChunk, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // this chunk has arrived, and nobody reads the one before
    if (kOutputs && first > 0) write_squares<Tile>(shared, first - Tile::kChunk);
    const bool more = first + Tile::kChunk < block.num_tokens;
    if (more) {
      load_chunk<Tile, kOutputs>(shared, first + Tile::kChunk, stage ^ 1);
      if (has_gates) {
        sum_gates(shared.gate, shared.log_decay[stage ^ 1]);
        load_gates(shared.gate, block, first + 2 * Tile::kChunk);
      }
    }
    bool finite = true;  // V in the warp's columns
    if constexpr (kOutputs) {
      compute_weights<Tile>(shared, stage, args.scale);
      while (true) {  // a second time where V is not finite
        GlaOutput<Tile> out;
        if (first > 0 || block.has_state) {
          read_state<Tile>(out, state, shared, stage, args.scale);
        } else {
          zero<Tile>(out);
        }
        if (finite) __syncthreads();  // the weights are complete
        const bool done = add_chunk<Tile>(out, shared, stage);
        if (done) sum_squares<Tile>(out, finite, shared);
        if (done) break;
        finite = false;
        remove_non_finite<Tile>(shared, stage);
      }
    } else {
      log_decay += shared.log_decay[stage][Tile::kChunk - 1];
    }
    if (!kOutputs || more) update_state<Tile>(state, finite, shared, stage);
    if (!more) break;
  }
  if constexpr (kOutputs) {
    __syncthreads();
    write_squares<Tile>(shared, first);
  } else {
    float* target = args.states + ((segment.state_out * num_chains + chain) * 2 + score) * Tile::kStateElements;
    for_each_accumulator<Tile>(state, [&](const float(&x)[4], int offset) {
      __stcg(reinterpret_cast<float4*>(target + offset), make_float4(x[0], x[1], x[2], x[3]));
    });
    if (threadIdx.x == 0 && score == 0) args.decays[segment.state_out * num_chains + chain] = log_decay;
  }
}

}  // namespace lighthouse
