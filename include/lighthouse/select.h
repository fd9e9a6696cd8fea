// Stages (iii) and (iv): the stratified top-k cascade and the order of the gathered sequence.
#pragma once

#include <cstdint>

#include "lighthouse/geometry.h"
#include "lighthouse/parallel_for.h"

namespace lighthouse {

/// Selects entries from level-0 scores; coarser scores are window maxima. NaN counts as -infinity, equal scores (also
/// -0 and +0) go to the lower index. The result depends on the scores only.
struct SelectParams {
  const float* s_qk;  ///< [B, H_kv, N] contiguous
  const float* s_kq;  ///< [B, H_kv, N] contiguous
  const SequencePlan* plan;
  int64_t batch, num_kv_heads;
  int32_t* selection;  ///< out [B, H_kv, S]: row -> flat entry
  int32_t* slots;      ///< out [B, H_kv, plan->num_slots]: slot index -> row in [0, S), or kNoRow
};
void select_entries(const SelectParams& params, const ParallelFor& parallel_for);

/// slots of a selection that check_selection (forest.h) found right, or that the caller vouches for. Throws
/// InvalidArgument naming (batch, KV head, row) where a value is not a flat entry of the document that the row belongs
/// to.
struct InvertSelectionParams {
  const int32_t* selection;  ///< [B, H_kv, S]: row -> flat entry
  const SequencePlan* plan;
  int64_t batch, num_kv_heads;
  int32_t* slots;  ///< out [B, H_kv, plan->num_slots]
};
void invert_selection(const InvertSelectionParams& params, const ParallelFor& parallel_for);

}  // namespace lighthouse
