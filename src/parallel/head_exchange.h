// Context parallelism: rows of all heads on the rank that gathered them <-> all rows on the rank that attends to some
// heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/group.h"
#include "parallel/head_spans.h"

namespace lighthouse {

// Each differentiable by means of the other: every rank must call backward as well. x and results contiguous.

/// x [B, H, S_r, D] of this rank's rows -> [B, heads of this rank, S, D]. `rows`: of each rank. `heads` may overlap
/// (key/ value heads); their gradients are then added in fp32 (fp64 for fp64) in the order of ranks, and rounded once.
at::Tensor to_heads(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group);
/// x [B, heads of this rank, S, D] -> [B, H, S_r, D]. `heads` must not overlap.
at::Tensor to_rows(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group);

/// Scores [B, heads of this rank, N] without gradient -> [B, H_kv, N_r]; of heads that several ranks have, the largest.
at::Tensor scores_to_rows(const at::Tensor& scores, const std::vector<Span>& heads, const std::vector<Span>& rows,
                          Group& group);

}  // namespace lighthouse
