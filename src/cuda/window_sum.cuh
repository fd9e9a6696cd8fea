// Sums over aligned windows of 1 to 64 tokens as the nodes of one binary tree: every level of every pooling factor is a
// size of node, and the same window gives the same bits wherever it is summed.
#pragma once

#include "cuda/octet.cuh"
#include "cuda/turn.cuh"

namespace lighthouse {

/// kVec channels of eight tokens, as they were loaded.
template <typename T, int kVec>
struct Octet {
  Vec<T, kVec> value[kOctet];

  /// Loads the tokens [token, token + 8) of a document of seq_len tokens that `wanted` has a bit for; others, and
  /// tokens outside, are zero. `source` is where `token` lies or would lie.
  template <typename Channels>
  __device__ __forceinline__ void load(const Channels& channels, const T* source, int64_t stride, int32_t token,
                                       int32_t seq_len, bool own_channels, unsigned wanted) {
#pragma unroll
    for (int t = 0; t < kOctet; ++t) {
      value[t] = Vec<T, kVec>{};
      const bool inside = token + t >= 0 && token + t < seq_len;
      // Turning takes the registers that addresses worked out all at once would.
      const T* from = Channels::kTurns ? source : source + t * stride;
      if (own_channels && inside && (wanted >> t & 1)) value[t] = channels.load(from);
      if (Channels::kTurns) source += stride;
    }
  }

  /// Turns every token in place, rounded as rotated heads are; zeros stay zeros.
  template <typename Tile>
  __device__ __forceinline__ void turn(const Tile& angles, int32_t channel) {
#pragma unroll
    for (int t = 0; t < kOctet; ++t) {
      float head[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) head[i] = value[t].wide(i);
      angles.template turn<false>(head, t, channel);
      value[t] = round_vec<T, kVec>(head, 1);
    }
  }
};

/// Sums every value[t] over the lanes of the group. Lane i returns the sum of token i / (kLanes / 8): each exchange
/// halves the tokens that a lane is responsible for.
template <int kLanes, typename Scalar>
__device__ __forceinline__ Scalar transpose_sum(Scalar (&value)[kOctet], const LaneGroup<kLanes>& group) {
  static_assert(kLanes >= kOctet);
#pragma unroll
  for (int half = kOctet / 2, mask = kLanes / 2; half >= 1; half /= 2, mask /= 2) {
    const bool upper = group.lane & mask;
#pragma unroll
    for (int t = 0; t < half; ++t) {
      const Scalar sent = upper ? value[t] : value[t + half];
      const Scalar kept = upper ? value[t + half] : value[t];
      value[t] = kept + group.exchange(sent, mask);
    }
  }
#pragma unroll
  for (int mask = kLanes / kOctet / 2; mask >= 1; mask /= 2) value[0] += group.exchange(value[0], mask);
  return value[0];
}

/// Of one thread. What waits for its other half lies in shared memory, where it is needed once an octet, and leaves the
/// registers to loads.
template <typename T, int kVec, int kThreads>
class WindowSum {
  using Real = Sum<T>;
  static constexpr int kWaiting = kLog2MaxUnit - kLog2Octet;  // sums of 8, 16 and 32 tokens

 public:
  using Shared = Real[kWaiting][kVec][kThreads];
  __device__ __forceinline__ explicit WindowSum(Shared& left) : left_(left) {}

  /// Adds octet number `octet` of the `num_octets` of a unit; calls done(log2, index, sum) for every window of 2, 4, 8,
  /// ... 64 tokens that this completes; index counts windows of at most 8 tokens inside the octet. Before that it calls
  /// visit(t, channels) for every token, widened.
  template <typename Visit, typename Done>
  __device__ __forceinline__ void add_octet(const Octet<T, kVec>& values, int octet, int num_octets, const Visit& visit,
                                            const Done& done) {
    Real eight[kVec];
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      Real sum[kVec];
#pragma unroll
      for (int two = 2 * four; two < 2 * four + 2; ++two) {
        Real pair[kVec];
        Real second[kVec];
#pragma unroll
        for (int c = 0; c < kVec; ++c) {
          pair[c] = values.value[2 * two].wide(c);
          second[c] = values.value[2 * two + 1].wide(c);
        }
        visit(2 * two, pair);
        visit(2 * two + 1, second);
#pragma unroll
        for (int c = 0; c < kVec; ++c) pair[c] += second[c];
        done(1, two, pair);
#pragma unroll
        for (int c = 0; c < kVec; ++c) sum[c] = two == 2 * four ? pair[c] : sum[c] + pair[c];
      }
      done(2, four, sum);
#pragma unroll
      for (int c = 0; c < kVec; ++c) eight[c] = four == 0 ? sum[c] : eight[c] + sum[c];
    }
    done(3, 0, eight);
    // A binary counter over the octets: the left half of a window waits for the right one.
#pragma unroll
    for (int i = 0; i < kWaiting; ++i) {
      if (1 << i >= num_octets) break;
      const bool right = octet >> i & 1;
#pragma unroll
      for (int c = 0; c < kVec; ++c) {
        if (right) {
          eight[c] += left_[i][c][threadIdx.x];
        } else {
          left_[i][c][threadIdx.x] = eight[c];
        }
      }
      if (!right) break;
      done(4 + i, 0, eight);
    }
  }

 private:
  Shared& left_;
};

}  // namespace lighthouse
