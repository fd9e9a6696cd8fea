// RoPE where tokens are read and written: channel c of a head turns with channel c + D/2, by an angle of its token.
#pragma once

#include <cuda_pipeline.h>

#include <cstdint>
#include <type_traits>

#include "cuda/vector.cuh"
#include "lighthouse/head_turn.h"

namespace lighthouse {

/// The roundings are spelled out: a pair gives the same bits wherever it is turned.
__device__ __forceinline__ void turn_pair(float& low, float& high, float cos, float sin) {
  const float turned = __fmaf_rn(low, cos, -__fmul_rn(high, sin));
  high = __fmaf_rn(high, cos, __fmul_rn(low, sin));
  low = turned;
}

/// How one of kLanes lanes reads and writes its kVec channels of a head: neighbours, or, where heads are turned, kVec /
/// 2 neighbours of each half, so that both channels of a pair are one lane's; then D is kLanes * kVec.
template <typename T, int kVec, int kLanes, bool kTurned>
struct HeadChannels {
  static constexpr bool kTurns = kTurned;
  static constexpr int kHalf = kLanes * kVec / 2;  ///< D/2

  /// The first channel of the lane whose first neighbour would be `channel`; it owns any if channel < D.
  static __device__ __forceinline__ int32_t first(int32_t channel) { return kTurned ? channel / 2 : channel; }

  static __device__ __forceinline__ Vec<T, kVec> load(const T* source) {
    if constexpr (!kTurned) {
      return load_vec<T, kVec>(source);
    } else {
      const auto low = load_vec<T, kVec / 2>(source);
      const auto high = load_vec<T, kVec / 2>(source + kHalf);
      Vec<T, kVec> both;
#pragma unroll
      for (int i = 0; i < kHalfWords; ++i) {
        both.word[i] = low.word[i];
        both.word[kHalfWords + i] = high.word[i];
      }
      return both;
    }
  }
  static __device__ __forceinline__ void store(T* target, const Vec<T, kVec>& value) {
    if constexpr (!kTurned) {
      store_vec(target, value);
    } else {  // not by assignment, which becomes two stores where the compiler loses sight of the alignment
      static_assert(sizeof(value) == 2 * sizeof(uint2));
      const auto* halves = reinterpret_cast<const uint2*>(value.word);
      __stwb(reinterpret_cast<uint2*>(target), halves[0]);
      __stwb(reinterpret_cast<uint2*>(target + kHalf), halves[1]);
    }
  }

 private:
  static constexpr int kHalfWords = sizeof(Vec<T, kVec>) / sizeof(typename Vec<T, kVec>::Word) / 2;
};

/// The angles of kTokens neighbouring tokens in shared memory: on their way while the heads are, and without registers.
template <int kTokens, int kHalf>
struct AngleTile {
  float4 cos[kTokens * kHalf / 4];
  float4 sin[kTokens * kHalf / 4];

  /// Begins to copy those of the tokens from `token` on; from seq_len on there are the last one's. Each of kThreads
  /// threads calls it, then waits by wait(), then for the others.
  template <int kThreads>
  __device__ __forceinline__ void begin_load(const HeadTurn& turn, int64_t token, int64_t seq_len, int thread) {
    constexpr int kVecs = kTokens * kHalf / 4;
#pragma unroll
    for (int begin = 0; begin < kVecs; begin += kThreads) {
      const int i = begin + thread;
      if (kVecs % kThreads != 0 && i >= kVecs) return;
      const int64_t source = min(token * kHalf + 4 * i, seq_len * kHalf - 4);
      __pipeline_memcpy_async(&cos[i], turn.cos + source, sizeof(float4));
      __pipeline_memcpy_async(&sin[i], turn.sin + source, sizeof(float4));
    }
  }
  static __device__ __forceinline__ void wait() {
    __pipeline_commit();
    __pipeline_wait_prior(0);
  }

  /// Turns a lane's channels of token t, the first of them `channel`; back where kBack.
  template <bool kBack, int kVec>
  __device__ __forceinline__ void turn(float (&head)[kVec], int t, int32_t channel) const {
    const auto cosines = load_vec<float, kVec / 2>(reinterpret_cast<const float*>(cos) + t * kHalf + channel);
    const auto sines = load_vec<float, kVec / 2>(reinterpret_cast<const float*>(sin) + t * kHalf + channel);
#pragma unroll
    for (int i = 0; i < kVec / 2; ++i) {
      turn_pair(head[i], head[kVec / 2 + i], cosines.word[i], kBack ? -sines.word[i] : sines.word[i]);
    }
  }
};
/// Takes no shared memory where nothing is turned.
template <bool kTurned, int kTokens, int kHalf>
using AngleTileIf = std::conditional_t<kTurned, AngleTile<kTokens, kHalf>, char>;

/// Tensors of q, k and v that are turned: the first two.
inline constexpr int kTurnedTensors = 2;

inline constexpr int kTurnThreads = 128;  ///< of a block that turns
inline constexpr int kTurnBlocks = 4;     ///< of a multiprocessor: turning takes registers

template <typename T>
inline constexpr bool kHasTurn = std::is_same_v<T, float> || std::is_same_v<T, __nv_bfloat16>;
/// Whether a group of lanes holds a head exactly, and all heads of a block are of the same tokens.
inline bool has_turn(DType dtype, int64_t head_dim, int64_t num_heads, int64_t num_kv_heads) {
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) return false;
  const int64_t head_bytes = head_dim * (dtype == DType::kFloat32 ? 4 : 2);
  if (head_bytes != 8 * 16 && head_bytes != 16 * 16 && head_bytes != 32 * 16) return false;
  const int64_t block_heads = kTurnThreads * 16 / head_bytes;
  return num_heads % block_heads == 0 && num_kv_heads % block_heads == 0;
}

}  // namespace lighthouse
