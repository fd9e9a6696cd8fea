// Eight neighbouring tokens of one head, aligned in their document, and the lanes that share them. Windows of 1, 2, 4
// and 8 tokens inside an octet are the 15 nodes of a binary tree, so each level of each pooling factor is one size of
// node; larger windows are whole octets.
#pragma once

#include <cstdint>

#include "cuda/fast_divide.h"
#include "cuda/vector.cuh"
#include "lighthouse/device_plan.h"

namespace lighthouse {

inline constexpr int kOctet = 1 << kLog2Octet;
inline constexpr int kNodes = 15;

/// Node number of the first window of 2^log2 tokens: 0, 8, 12, 14.
LIGHTHOUSE_HOST_DEVICE constexpr int node_begin(int log2) { return 16 - (16 >> log2); }
LIGHTHOUSE_HOST_DEVICE constexpr int node_log2(int node) { return (node >= 8) + (node >= 12) + (node >= 14); }

/// kLanes neighbouring threads that own the channels of one head.
template <int kLanes>
struct LaneGroup {
  int lane = static_cast<int>(threadIdx.x) % kLanes;
  unsigned shift = threadIdx.x % 32 / kLanes * kLanes;
  unsigned mask = (kLanes == 32 ? ~0U : (1U << kLanes % 32) - 1) << shift;

  template <typename Value>
  __device__ __forceinline__ Value broadcast(Value value, int source) const {
    return __shfl_sync(mask, value, source, kLanes);
  }
  template <typename Value>
  __device__ __forceinline__ Value exchange(Value value, int lane_mask) const {
    return __shfl_xor_sync(mask, value, lane_mask, kLanes);
  }
  __device__ __forceinline__ unsigned ballot(bool flag) const { return (__ballot_sync(mask, flag) & mask) >> shift; }
};

/// The rows of the nodes of one octet, spread over the lanes of a group.
template <int kLanes>
class NodeRows {
  static constexpr int kPerLane = (kNodes + kLanes - 1) / kLanes;

 public:
  /// `slots` is of one KV head and document; `first` the aligned position of the octet. kShift 1: positions are
  /// token + 1, and the entry of a window is the one before it (scatter), else 0.
  template <int kShift>
  __device__ __forceinline__ void load(const int32_t* slots, const DevicePlan& plan, const DeviceDocument& document,
                                       int32_t first, const LaneGroup<kLanes>& group) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int node = group.lane + i * kLanes;
      const int log2 = node_log2(node);
      const int level = node < kNodes ? plan.level_of[log2] : -1;
      const int32_t entry = (first >> log2) + (node - node_begin(log2)) - kShift;
      row_[i] = kNoRow;
      if (level >= 0 && entry >= 0 && entry < plan.size_of(document, level)) {
        row_[i] = slots[plan.begin_of(document, level) + entry];
      }
    }
  }
  /// Bit n: node n has a row. The same in all lanes.
  __device__ __forceinline__ unsigned present(const LaneGroup<kLanes>& group) const {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) bits |= group.ballot(row_[i] != kNoRow) << (i * kLanes % 32);
    return bits;
  }
  __device__ __forceinline__ int32_t row(int node, const LaneGroup<kLanes>& group) const {
    return group.broadcast(row_[kPerLane == 1 ? 0 : node / kLanes], node % kLanes);
  }

 private:
  int32_t row_[kPerLane];
};

/// Which octet or unit, head and channels a group of lanes owns: heads are neighbours, so that a block reads whole
/// tokens, then channel blocks, then positions.
struct WorkItem {
  int32_t position;
  int32_t head;
  int32_t channel;
};
template <int kLanes, int kVec>
__device__ __forceinline__ WorkItem work_item(const FastDivide& num_heads, const FastDivide& channel_blocks) {
  const uint32_t item = blockIdx.x * (blockDim.x / kLanes) + threadIdx.x / kLanes;
  const uint32_t rest = num_heads.quotient(item);
  const uint32_t position = channel_blocks.quotient(rest);
  const uint32_t block = rest - position * channel_blocks.divisor();
  return {static_cast<int32_t>(position), static_cast<int32_t>(item - rest * num_heads.divisor()),
          static_cast<int32_t>((block * kLanes + threadIdx.x % kLanes) * kVec)};
}

}  // namespace lighthouse
