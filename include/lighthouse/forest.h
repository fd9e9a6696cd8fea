// Whether a selection that a caller made is the post-order of an expanded forest (section iv). Selections of
// select_entries are; on any other order of rows plain causal attention is not causal.
#pragma once

#include <cstdint>
#include <functional>

#include "lighthouse/geometry.h"
#include "lighthouse/parallel_for.h"

namespace lighthouse {

/// What may stand in one row, given the row before. That is all a forest asks, so each row can be checked by itself:
/// after the last child of an entry that entry, as its summary; after any other entry a leaf that begins where the
/// window before ends, no coarser than the entry before.
struct NextRow {
  Entry coarsest;   ///< that summary, or the coarsest such leaf
  bool is_summary;  ///< then nothing but `coarsest` will do
};

/// Of the first row of a document: any leaf at its start.
LIGHTHOUSE_HOST_DEVICE constexpr NextRow first_row(const Pyramid& pyramid) {
  return {{pyramid.num_levels - 1, 0}, false};
}
LIGHTHOUSE_HOST_DEVICE constexpr NextRow row_after(const Pyramid& pyramid, Entry previous) {
  const int64_t next = previous.index + 1;
  const bool ends_parent = previous.level + 1 < pyramid.num_levels && next % pyramid.window(1) == 0;
  if (ends_parent) return {{previous.level + 1, previous.index >> pyramid.log2_pool}, true};
  return {{previous.level, next}, false};
}
LIGHTHOUSE_HOST_DEVICE constexpr bool may_stand(const Pyramid& pyramid, const NextRow& next, Entry entry) {
  if (next.is_summary) return entry.level == next.coarsest.level && entry.index == next.coarsest.index;
  return entry.level <= next.coarsest.level && entry.index == next.coarsest.index
                                                                  << pyramid.shift(next.coarsest.level - entry.level);
}
/// The last row of a document is its last coarsest entry.
LIGHTHOUSE_HOST_DEVICE constexpr bool may_be_last(const Pyramid& pyramid, Entry entry) {
  return entry.level == pyramid.num_levels - 1 && entry.index == pyramid.num_coarse() - 1;
}

/// The first row of `selection` [S], row -> flat entry, that makes it something else than a forest in gathered order in
/// each document of the plan, or kNoRow. Which entries are expanded is free: budgets of tiles are not looked at.
int64_t first_wrong_row(const SequencePlan& plan, const int32_t* selection);

struct SelectionView {
  const int32_t* selection;  ///< [B, H_kv, S]: row -> flat entry
  const SequencePlan* plan;
  int64_t batch, num_kv_heads;
};
/// Throws InvalidArgument naming the first wrong (batch, KV head, row), what it holds and what may stand there.
void check_selection(const SelectionView& view, const ParallelFor& parallel_for);
/// The same of the rows that `find` returns for each head of B * H_kv: wrong ones, or kNoRow.
void throw_first_wrong_row(const SelectionView& view, const ParallelFor& parallel_for,
                           const std::function<int64_t(int64_t head, const int32_t* selection)>& find);

}  // namespace lighthouse
