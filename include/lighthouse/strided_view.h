// A tensor argument of the stages: a pointer and three strides.
#pragma once

#include <cstdint>

namespace lighthouse {

/// A [batch, sequence, head, channel] tensor in any memory order whose channels are contiguous. `sequence` counts
/// tokens for q, k, v, o (usually stored [B, N, H, D]) and rows for the gathered tensors (usually stored [B, H, S, D]).
/// Strides count elements, may be zero or in any order, and need not be multiples of the head dimension.
template <typename Void>
struct BasicView {
  Void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t seq_stride = 0;
  int64_t head_stride = 0;
};
using View = BasicView<void>;
using ConstView = BasicView<const void>;

}  // namespace lighthouse
