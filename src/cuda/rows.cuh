// The two linear maps between tokens and rows, and their adjoints, are two kernels:
//   rows_from_tokens   gather (section i) and scatter's adjoint: a row is a sum over a run of tokens;
//   tokens_from_rows   scatter (section vi) and gather's adjoint: a token is a sum over at most one row of each level.
// Every element is written once, by one thread, in a fixed order of additions: no atomics, the same bits on every run.
// These headers hold what both share; the kernels are in rows_from_tokens.cuh and tokens_from_rows.cuh.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/octet.cuh"
#include "cuda/turn.cuh"
#include "cuda/vector.cuh"
#include "lighthouse/device_plan.h"

namespace lighthouse {

/// Which of the two pairs of maps: kMean pools windows (gather and its adjoint, weight p^-l), kShifted adds a row to
/// the p^l tokens from the last of its window on (scatter and its adjoint, weight 1). Counted from token + 1 those are
/// the window after the row's own, so both maps are sums over aligned windows.
enum class RowMap { kMean, kShifted };
template <RowMap kMap>
inline constexpr int kShiftOf = kMap == RowMap::kShifted ? 1 : 0;

/// One tensor: its tokens and its rows, one of them the source.
template <typename TokenVoid, typename RowVoid>
struct RowMapTensor {
  BasicView<TokenVoid> tokens;  ///< [B, N, H, D]
  BasicView<RowVoid> rows;      ///< [B, S, H, D]
  const void* coarse;           ///< kMean from tokens: means of the coarsest entries [B, num_coarse, H, D], or null
  FastDivide num_heads;         ///< H of this tensor
  FastDivide group;             ///< query heads of a KV head, or 1
};

template <typename TokenVoid, typename RowVoid>
struct RowMapArgs {
  RowMapTensor<TokenVoid, RowVoid> tensors[3];
  const int32_t* slots;      ///< [B, H_kv, num_slots]
  const int32_t* selection;  ///< [B, H_kv, S]; rows_from_tokens only
  const int32_t* expanded;   ///< [B, H_kv, num_expanded] where there are coarse means
  DevicePlan plan;
  int32_t batch, num_kv_heads, head_dim;
  FastDivide channel_blocks;  ///< groups of lanes that one head takes
  HeadTurn turn;              ///< kMean only
};
using RowsFromTokens = RowMapArgs<const void, void>;
using TokensFromRows = RowMapArgs<void, const void>;

/// A tensor of args; `num_heads` a multiple of the KV heads.
template <typename TokenVoid, typename RowVoid>
RowMapTensor<TokenVoid, RowVoid> row_map_tensor(const BasicView<TokenVoid>& tokens, const BasicView<RowVoid>& rows,
                                                int64_t num_heads, int64_t num_kv_heads, const void* coarse = nullptr) {
  return {tokens, rows, coarse, FastDivide(static_cast<uint32_t>(num_heads)),
          FastDivide(static_cast<uint32_t>(num_heads / num_kv_heads))};
}

/// Copies what every stage's parameters have in common.
template <typename Args, typename Params>
void set_common(Args& args, const Params& params, const DevicePlan& plan) {
  args.plan = plan;
  args.batch = static_cast<int32_t>(params.batch);
  args.num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  args.head_dim = static_cast<int32_t>(params.head_dim);
}

inline constexpr int kRowMapThreads = 128;
static_assert(kRowMapThreads == kTurnThreads);

/// Whether 16-byte accesses fit all views and the head dimension.
template <typename T, typename Args>
bool vectorizable(const Args& args, int num_tensors) {
  bool aligned = args.head_dim * sizeof(T) % 16 == 0;
  for (int i = 0; i < num_tensors; ++i) {
    aligned = aligned && rows_aligned(args.tensors[i].tokens, sizeof(T), 16) &&
              rows_aligned(args.tensors[i].rows, sizeof(T), 16);
  }
  return aligned;
}

/// Calls launch(vec, lanes) with the narrowest group of lanes that holds a head, 16 bytes a lane; single channels where
/// the strides do not allow that.
template <typename T, typename Args, typename Launch>
void dispatch_lanes(Args& args, int num_tensors, const Launch& launch) {
  constexpr int kVec = 16 / sizeof(T);
  const auto with = [&](auto vec, auto lanes) {
    args.channel_blocks = FastDivide(static_cast<uint32_t>(ceil_div(args.head_dim, int64_t{vec.value} * lanes.value)));
    launch(vec, lanes);
  };
  const auto vec = std::integral_constant<int, kVec>{};
  if (!vectorizable<T>(args, num_tensors)) {
    with(std::integral_constant<int, 1>{}, std::integral_constant<int, 32>{});
  } else if (args.head_dim <= 8 * kVec) {
    with(vec, std::integral_constant<int, 8>{});
  } else if (args.head_dim <= 16 * kVec) {
    with(vec, std::integral_constant<int, 16>{});
  } else {
    with(vec, std::integral_constant<int, 32>{});
  }
}

/// Calls launch(std::bool_constant) with whether the kernel turns q and k.
template <typename T, int kVec, RowMap kMap, typename Args, typename Launch>
void dispatch_turn(const Args& args, const Launch& launch) {
  if (args.turn.cos == nullptr) return launch(std::false_type{});
  if constexpr (kHasTurn<T> && kVec > 1 && kMap == RowMap::kMean) {
    launch(std::true_type{});
  } else {
    LIGHTHOUSE_CHECK(false, "no kernel turns heads with these strides and of this dtype");
  }
}

/// Blocks for `positions` octets or units of the tensor with the most heads. grid = (work items, tensors, batch).
template <typename Args>
dim3 row_map_grid(const Args& args, int num_tensors, int64_t positions, int lanes) {
  int64_t num_heads = 0;
  for (int i = 0; i < num_tensors; ++i) num_heads = std::max<int64_t>(num_heads, args.tensors[i].num_heads.divisor());
  const int64_t items = positions * num_heads * args.channel_blocks.divisor();
  LIGHTHOUSE_CHECK(items < int64_t{1} << 31, "lighthouse: ", positions, " parts of the sequence times ", num_heads,
                   " heads are too many for one kernel; split the heads");
  return dim3(static_cast<unsigned>(ceil_div(items, kRowMapThreads / lanes)), num_tensors, batch_blocks(args.batch));
}

}  // namespace lighthouse
