// How Python tells of a plan.
#pragma once

#include <span>

#include "calls/plan.h"
#include "lighthouse/check.h"

namespace lighthouse::stable {

/// Of `layout` = [num_levels, pooling_factor, topk, tile_topk], followed, for a part of a row, by [seq_len, tile_begin,
/// tile_end] (calls::PartOfRow). `seq_len` is for calls whose arguments do not show it. Throws InvalidArgument.
inline calls::PlanArgument plan_argument(std::span<const int64_t> layout, calls::Offsets cu_seqlens,
                                         int64_t seq_len = 0, bool cover_prefix = true) {
  LIGHTHOUSE_CHECK(layout.size() == 4 || layout.size() == 7, "lighthouse: layout has ", layout.size(),
                   " elements; it must be [num_levels, pooling_factor, topk, tile_topk], and of a part of a row "
                   "[..., seq_len, tile_begin, tile_end]");
  const SelectionConfig config{layout[0], layout[1], layout[2], layout[3], cover_prefix};
  if (layout.size() == 4) return {config, cu_seqlens, seq_len};
  return {config, cu_seqlens, calls::PartOfRow{layout[4], layout[5], layout[6]}};
}

}  // namespace lighthouse::stable
