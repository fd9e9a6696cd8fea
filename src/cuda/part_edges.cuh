// What crosses the cuts between the parts of a plan (part_of), on the device: the few tokens and rows at the edges of a
// part are summed once more, over all their terms and in the order of the kernels that sum the others.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/vector.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {

/// An edge of a part: at most F - 1 tokens, or one entry of every level.
struct EdgeArgs {
  ConstView inside;   ///< rows [B, S, H, D] of the part, or tokens [B, N, H, D]
  ConstView outside;  ///< carried rows [B, L-1, H, D], or tokens behind the part [B, num_outside, H, D]
  View out;
  const int32_t* slots;  ///< [B, H_kv, num_slots]
  Pyramid pyramid;       ///< of the document at the edge
  int64_t token_begin, slot_begin;
  int64_t num_outside;  ///< tokens behind the part
  int64_t num_slots, batch, num_heads, num_kv_heads, head_dim;
  int64_t positions;  ///< tokens or levels that are summed
  bool by_tree;       ///< rows are sums by halves (window_sum.cuh), else one token after another
};

inline constexpr int kEdgeThreads = 128;

/// One channel of one position of one head.
struct EdgeItem {
  int64_t batch, head, position, channel;
};
__device__ __forceinline__ EdgeItem edge_item(const EdgeArgs& args, int64_t item) {
  const int64_t position = item / args.head_dim / args.num_heads;
  return {position / args.positions, item / args.head_dim % args.num_heads, position % args.positions,
          item % args.head_dim};
}
template <typename T, typename Void>
__device__ __forceinline__ auto* element_of(const BasicView<Void>& view, const EdgeItem& item, int64_t position) {
  using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;
  return static_cast<Element*>(view.data) + item.batch * view.batch_stride + position * view.seq_stride +
         item.head * view.head_stride + item.channel;
}
__device__ __forceinline__ const int32_t* slots_of(const EdgeArgs& args, const EdgeItem& item) {
  const int64_t kv_head = item.batch * args.num_kv_heads + item.head * args.num_kv_heads / args.num_heads;
  return args.slots + kv_head * args.num_slots + args.slot_begin;
}
template <typename T>
__device__ __forceinline__ void store_sum(T* out, Sum<T> sum) {
  const Sum<T> sums[1] = {sum};
  store_vec(out, round_vec<T, 1>(sums, 1));
}

/// Tokens at the front of a part: rows of the levels from the coarsest down, carried ones where the entry lies before
/// it.
template <typename T>
__global__ void __launch_bounds__(kEdgeThreads) scatter_to_front_kernel(const __grid_constant__ EdgeArgs args) {
  const int64_t number = int64_t{blockIdx.x} * kEdgeThreads + threadIdx.x;
  if (number >= args.batch * args.positions * args.num_heads * args.head_dim) return;
  const EdgeItem item = edge_item(args, number);
  const int32_t* slots = slots_of(args, item);
  Sum<T> sum = 0;
  for (int level = args.pyramid.num_levels - 1; level >= 0; --level) {
    const int64_t entry = scattered_entry(args.pyramid, level, item.position);
    if (entry < 0) {
      sum += widen(*element_of<T>(args.outside, item, level - 1));
      continue;
    }
    const int32_t row = slots[args.pyramid.slot_offset(level) + entry];
    if (row != kNoRow) sum += widen(*element_of<T>(args.inside, item, row));
  }
  store_sum(element_of<T>(args.out, item, item.position), sum);
}

/// Rows of the last entries of the levels from 1 up, which are added to tokens behind the part.
template <typename T>
__global__ void __launch_bounds__(kEdgeThreads) gather_from_behind_kernel(const __grid_constant__ EdgeArgs args) {
  const int64_t number = int64_t{blockIdx.x} * kEdgeThreads + threadIdx.x;
  if (number >= args.batch * args.positions * args.num_heads * args.head_dim) return;
  const EdgeItem item = edge_item(args, number);
  const int level = static_cast<int>(item.position) + 1;
  const int64_t entry = args.pyramid.level_size(level) - 1;
  const int32_t row = slots_of(args, item)[args.pyramid.slot_offset(level) + entry];
  if (row == kNoRow) return;
  const auto token = [&](int64_t number_in_document) -> Sum<T> {
    const int64_t behind = number_in_document - args.pyramid.seq_len;
    if (behind >= args.num_outside) return 0;
    return widen(behind < 0 ? *element_of<T>(args.inside, item, args.token_begin + number_in_document)
                            : *element_of<T>(args.outside, item, behind));
  };
  const int64_t first = args.pyramid.seq_len - 1;  // the window ends with the part
  const int64_t count =
      args.by_tree ? args.pyramid.window(level) : min(args.pyramid.window(level), args.num_outside + 1);
  Sum<T> halves[kLog2MaxUnit + 1];
  Sum<T> sum = 0;
  for (int64_t t = 0; t < count; ++t) {
    if (!args.by_tree) {
      sum += token(first + t);
      continue;
    }
    sum = token(first + t);
    int log2 = 0;
    for (; t >> log2 & 1; ++log2) sum = halves[log2] + sum;
    halves[log2] = sum;
  }
  store_sum(element_of<T>(args.out, item, row), sum);
}

/// carry_rows; `positions` are levels from 1 up.
template <typename T>
__global__ void __launch_bounds__(kEdgeThreads) carry_rows_kernel(const __grid_constant__ EdgeArgs args) {
  const int64_t number = int64_t{blockIdx.x} * kEdgeThreads + threadIdx.x;
  if (number >= args.batch * args.positions * args.num_heads * args.head_dim) return;
  const EdgeItem item = edge_item(args, number);
  const int level = static_cast<int>(item.position) + 1;
  const bool goes_on = args.num_outside > 0 && level < args.pyramid.num_levels;
  int32_t row = kNoRow;
  if (goes_on) row = slots_of(args, item)[args.pyramid.slot_offset(level) + args.pyramid.level_size(level) - 1];
  *element_of<T>(args.out, item, item.position) = row == kNoRow ? narrow<T>(0) : *element_of<T>(args.inside, item, row);
}

/// What all stages' parameters have in common, and the document.
template <typename Params>
EdgeArgs edge_args(const Params& params, const Document& document, const int32_t* slots, int64_t positions) {
  EdgeArgs args{};
  args.slots = slots;
  args.pyramid = document.pyramid;
  args.token_begin = document.token_begin;
  args.slot_begin = document.slot_begin;
  args.num_outside = document.tokens_after;
  args.num_slots = params.plan->num_slots;
  args.batch = params.batch;
  args.num_heads = params.num_heads;
  args.num_kv_heads = params.num_kv_heads;
  args.head_dim = params.head_dim;
  args.positions = positions;
  return args;
}

/// Launches kernel(T) with a thread for every channel.
template <typename Launch>
void launch_edge(const EdgeArgs& args, DType dtype, const Launch& launch) {
  const int64_t items = args.batch * args.positions * args.num_heads * args.head_dim;
  if (items == 0) return;
  dispatch_dtype(dtype, [&](auto element) { launch(element, static_cast<unsigned>(ceil_div(items, kEdgeThreads))); });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse
