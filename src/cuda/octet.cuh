// Eight or sixteen neighbouring tokens of one head, aligned in their document, and the lanes that share them. Windows
// of 1, 2, 4, 8 (and 16) tokens inside them are the nodes of a binary tree, so each level of each pooling factor is one
// size of node.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/fast_divide.h"
#include "cuda/vector.cuh"
#include "lighthouse/device_plan.h"

namespace lighthouse {

inline constexpr int kOctet = 1 << kLog2Octet;

/// kLanes neighbouring threads that own the channels of one head. Their exchanges name the whole warp, so that each is
/// one instruction: every lane that has not left the kernel takes part, and the way there is the same for a warp.
template <int kLanes>
struct LaneGroup {
  int lane = static_cast<int>(threadIdx.x) % kLanes;

  template <typename Value>
  static __device__ __forceinline__ Value broadcast(Value value, int source) {
    return __shfl_sync(~0U, value, source, kLanes);
  }
  template <typename Value>
  static __device__ __forceinline__ Value exchange(Value value, int lane_mask) {
    return __shfl_xor_sync(~0U, value, lane_mask, kLanes);
  }
  /// Bit i: lane i of any group of the warp raised its flag; the same for a warp.
  static __device__ __forceinline__ unsigned any(bool flag) {
    unsigned flags = __ballot_sync(~0U, flag);
#pragma unroll
    for (int width = 16; width >= kLanes; width /= 2) flags |= flags >> width;
    return kLanes == 32 ? flags : flags & ((1U << kLanes % 32) - 1);
  }
};

/// The rows of the nodes of 2^kLog2Tokens tokens, spread over the lanes of a group. Nodes of 16 by their numbers:
///
///     tokens of a node
///     16  |                               30                              |   p = 2, 4 or 16: a level
///      8  |               28              |               29              |   p = 2 or 8
///      4  |       24      |       25      |       26      |       27      |   p = 2 or 4
///      2  |   16  |   17  |   18  |   19  |   20  |   21  |   22  |   23  |   p = 2
///      1  | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10| 11| 12| 13| 14| 15|   the tokens
template <int kLog2Tokens, int kLanes>
class NodeRows {
  static constexpr int kNodes = (2 << kLog2Tokens) - 1;
  static constexpr int kPerLane = (kNodes + kLanes - 1) / kLanes;

 public:
  /// Number of the first node of 2^log2 tokens; those of one token come first.
  static __device__ __forceinline__ constexpr int begin(int log2) {
    return (2 << kLog2Tokens) - (2 << kLog2Tokens >> log2);
  }

  NodeRows() = default;
  /// `slots` is of one KV head and document; `first` the aligned position of the tokens. kShift 1: positions are
  /// token + 1, and the entry of a window is the one before it (scatter), else 0. Only nodes inside the tokens that
  /// `wanted` has bits for get a row.
  template <int kShift>
  __device__ __forceinline__ void load(const int32_t* slots, const DevicePlan& plan, const DeviceDocument& document,
                                       int32_t first, unsigned wanted, const LaneGroup<kLanes>& group) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int node = group.lane + i * kLanes;
      int log2 = 0;
#pragma unroll
      for (int size = 1; size <= kLog2Tokens; ++size) log2 += node >= begin(size);
      const int level = node < kNodes ? plan.level_of[log2] : -1;
      const int index = node - begin(log2);
      const int32_t entry = (first >> log2) + index - kShift;
      const unsigned tokens = ((2U << ((1 << log2) - 1)) - 1) << (index << log2);
      row_[i] = kNoRow;
      if ((tokens & ~wanted) == 0 && level >= 0 && entry >= 0 && entry < plan.size_of(document, level)) {
        row_[i] = slots[plan.begin_of(document, level) + entry];
      }
    }
  }
  /// Bit n: node n has a row in any group of the warp.
  __device__ __forceinline__ unsigned in_warp() const {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) bits |= LaneGroup<kLanes>::any(row_[i] != kNoRow) << (i * kLanes % 32);
    return bits;
  }
  /// kNoRow where it has none. A whole warp asks.
  __device__ __forceinline__ int32_t row(int node) const {
    return LaneGroup<kLanes>::broadcast(row_[kPerLane == 1 ? 0 : node / kLanes], node % kLanes);
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
__device__ __forceinline__ WorkItem work_item(const FastDivide& num_heads, const FastDivide& channel_blocks,
                                              uint32_t block_number = blockIdx.x) {
  const uint32_t item = block_number * (blockDim.x / kLanes) + threadIdx.x / kLanes;
  const uint32_t rest = num_heads.quotient(item);
  const uint32_t position = channel_blocks.quotient(rest);
  const uint32_t block = rest - position * channel_blocks.divisor();
  return {static_cast<int32_t>(position), static_cast<int32_t>(item - rest * num_heads.divisor()),
          static_cast<int32_t>((block * kLanes + threadIdx.x % kLanes) * kVec)};
}

}  // namespace lighthouse
