// What the tensor-core kernel of the scorer `gla` (gla_chunks.cuh) works on: its arguments, its tiles in shared memory,
// and how they are filled.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/mma.cuh"
#include "lighthouse/score.h"
#include "stages/gla_segments.h"

namespace lighthouse {

struct GlaArgs {
  ConstView q, k, v;
  const float* gate;
  int64_t gate_batch_stride, gate_seq_stride, gate_head_stride;
  GlaSegments segments;
  int32_t batch, num_heads, num_kv_heads, head_dim;
  float scale;     // 1 / sqrt(D)
  float* squares;  // [slices, 2, B, H, N] sums of squares of the outputs' channels: s_qk, s_kq
  float* states;   // [num_states, B, H, 2, kDim * kDim] in order of registers
  float* decays;   // [num_states, B, H] log2 of the decay over a segment
};

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kMinLogDecay = -160.0f;

/// Rows of a block's segment in one tensor, or its gates.
template <typename T>
struct GlaRows {
  const T* data;
  int64_t stride;
};

/// What a block works on. Kept in shared memory: the registers belong to the state.
template <typename T>
struct alignas(16) GlaBlock {
  GlaRows<T> key, value, query;
  GlaRows<float> gate;
  float* squares;  // of the first token
  int64_t dilation;
  int32_t num_tokens, head_dim;
  bool has_state;  // before the segment

  __device__ __forceinline__ int rows_from(int first) const {
    return min(num_tokens - first, static_cast<int>(kGlaChunk));
  }
};

/// kDim is head_dim rounded up to what is compiled: channels past head_dim are zeros.
template <typename Element, int kHeadDim>
struct GlaTile {
  using T = Element;
  static constexpr int kDim = kHeadDim;
  static constexpr int kChunk = kGlaChunk;
  static constexpr int kRowTiles = kChunk / 16;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kUnits = kDim / 8;             // 16-byte units of a row
  static constexpr int kKeyTiles = kDim / 16;         // of 16 query and key channels
  static constexpr int kColumns = kDim / kWarps;      // value channels of a warp
  static constexpr int kValueTiles = kColumns / 16;   // of 16 of them
  static constexpr int kStateElements = kDim * kDim;  // of all warps
  static constexpr int kMinBlocks = kDim == 128 ? 2 : 3;

  struct Shared {
    GlaBlock<T> block;
    T key[2][kChunk * kDim];  // two stages each: the next chunk is loaded while this one is used
    T value[2][kChunk * kDim];
    float gate[kChunk];          // of the next chunk
    float log_decay[2][kChunk];  // G in units of log 2
    // Only where outputs are computed:
    T query[2][kChunk * kDim];
    T weight[kChunk * kChunk];     // exp(G_i - G_j) (q_i k_j) / sqrt(D), 0 for j > i
    int first_nan[kWarps];         // in the warp's columns of V, where not all of them are finite
    float square[kWarps][kChunk];  // of the warp's columns of an output
  };
};

/// What a lane owns of the state: S^T of its warp's columns, value channels by key channels, as accumulators.
template <typename Tile>
using GlaState = float[Tile::kValueTiles][2 * Tile::kKeyTiles][4];
/// Outputs of all 64 tokens in the warp's columns.
template <typename Tile>
using GlaOutput = float[Tile::kRowTiles][2 * Tile::kValueTiles][4];

/// Four 8x8 matrices of a tile [64, 8 * kUnits] from (row, unit) on, in the order (0, 0), (8, 0), (0, 1), (8, 1) of
/// rows and units: fragment A of what is stored, or transposed two fragments B.
template <bool kTranspose, int kUnits, typename T>
__device__ __forceinline__ void load_down(uint32_t (&x)[4], const T* tile, int row, int unit, int lane) {
  load_matrices<kTranspose>(x, tile + 8 * swizzled_unit(row + lane % 16, unit + lane / 16, kUnits));
}
/// The same in the order (0, 0), (0, 1), (8, 0), (8, 1): two fragments B of the transpose of what is stored, or
/// transposed fragment A of its transpose.
template <bool kTranspose, int kUnits, typename T>
__device__ __forceinline__ void load_across(uint32_t (&x)[4], const T* tile, int row, int unit, int lane) {
  load_matrices<kTranspose>(x, tile + 8 * swizzled_unit(row + lane % 8 + lane / 16 * 8, unit + lane / 8 % 2, kUnits));
}

/// Tokens from `first` on of one tensor to shared memory; past the segment's end and the head's channels stand zeros. A
/// thread copies one unit of every eighth (kDim 128) or sixteenth (64) row.
template <typename Tile, typename T>
__device__ __forceinline__ void load_rows(T* tile, const GlaBlock<T>& block, const GlaRows<T>& rows, int first) {
  constexpr int kRowsPerStep = Tile::kThreads / Tile::kUnits;  // a multiple of 8: the steps' units are swizzled alike
  const int unit = threadIdx.x % Tile::kUnits;
  const int row = threadIdx.x / Tile::kUnits;
  const int64_t stride = rows.stride;
  const int num_rows = block.rows_from(first);
  const bool real_unit = unit * 8 < block.head_dim;
  const T* source = rows.data + (first + row) * stride + unit * 8;
  T* target = tile + 8 * swizzled_unit(row, unit, Tile::kUnits);
  if (num_rows == Tile::kChunk && block.head_dim == Tile::kDim) {
#pragma unroll
    for (int step = 0; step < Tile::kChunk / kRowsPerStep; ++step) {
      copy_async_16(target + step * kRowsPerStep * Tile::kDim, source, true);
      source += kRowsPerStep * stride;
    }
  } else {
#pragma unroll 1
    for (int step = 0; step < Tile::kChunk / kRowsPerStep; ++step) {
      const bool real = real_unit && row + step * kRowsPerStep < num_rows;
      copy_async_16(target + step * kRowsPerStep * Tile::kDim, real ? source : rows.data, real);
      source += kRowsPerStep * stride;
    }
  }
}
template <typename Tile, bool kOutputs>
__device__ __forceinline__ void load_chunk(typename Tile::Shared& shared, int first, int stage) {
  load_rows<Tile>(shared.key[stage], shared.block, shared.block.key, first);
  load_rows<Tile>(shared.value[stage], shared.block, shared.block.value, first);
  if constexpr (kOutputs) load_rows<Tile>(shared.query[stage], shared.block, shared.block.query, first);
}

/// The gates of a chunk to shared memory, by one warp. A lane copies, and later reads, those of two neighbouring
/// tokens.
template <typename T>
__device__ __forceinline__ void load_gates(float* gates, const GlaBlock<T>& block, int first) {
  const int row = 2 * volatile_lane();
  const int num_rows = block.rows_from(first);
  const int64_t stride = block.gate.stride;
  const float* source = block.gate.data;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool real = row + i < num_rows;
    copy_async_4(gates + row + i, real ? source + (first + row + i) * stride : source, real);
  }
}
__device__ __forceinline__ float log2_decay(float gate) {
  const float log2 = gate * kLog2E;
  return log2 < kMinLogDecay ? kMinLogDecay : log2;  // NaN stays
}
/// Writes the inclusive sums of a chunk's gates.
__device__ __forceinline__ void sum_gates(const float* gates, float* log_decay) {
  const int lane = volatile_lane();
  const float2 both = reinterpret_cast<const float2*>(gates)[lane];
  const float first = log2_decay(both.x);
  const float pair = first + log2_decay(both.y);
  float sum = pair;  // through this lane's second token
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const float before = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += before;
  }
  float before = __shfl_up_sync(~0u, sum, 1);
  if (lane == 0) before = 0;
  reinterpret_cast<float2*>(log_decay)[lane] = make_float2(before + first, sum);
}

}  // namespace lighthouse
