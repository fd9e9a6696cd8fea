// Stages (i) and (iv): the mean-pooled rows of the selected entries of q, k and v, and the adjoint of that map (vii).
#pragma once

#include <cstdint>

#include "lighthouse/dtype.h"
#include "lighthouse/geometry.h"
#include "lighthouse/parallel_for.h"
#include "lighthouse/strided_view.h"

namespace lighthouse {

/// rows[b, r, h, :] = mean of x[b, j, h, :] over the window of entry selection[b, g, r], for x in q, k, v; g = the KV
/// group of h. Tokens past the end of the document count as zero in the mean. Tokens are added in order in fp32 (fp64
/// for fp64) and rounded once.
struct GatherParams {
  ConstView q;               ///< [B, N, H, D] dtype
  ConstView k;               ///< [B, N, H_kv, D]
  ConstView v;               ///< [B, N, H_kv, D]
  View q_rows;               ///< out [B, S, H, D]; every element is written
  View k_rows;               ///< out [B, S, H_kv, D]
  View v_rows;               ///< out [B, S, H_kv, D]
  const int32_t* selection;  ///< [B, H_kv, S] contiguous: row -> flat entry
  const SequencePlan* plan;
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
};
void gather_rows(const GatherParams& params, const ParallelFor& parallel_for);

/// dx[b, j, h, :] = sum over levels l, from 0 upwards, of drows[b, slot(l, j / p^l), h, :] / p^l where that entry was
/// gathered. One sum per token: no atomics, the same bits on every run.
struct GatherBackwardParams {
  ConstView dq_rows, dk_rows, dv_rows;  ///< as q_rows, k_rows, v_rows above
  View dq, dk, dv;                      ///< out, as q, k, v above; every element is written
  const int32_t* slots;                 ///< [B, H_kv, plan->num_slots] contiguous
  const SequencePlan* plan;
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
};
void gather_rows_backward(const GatherBackwardParams& params, const ParallelFor& parallel_for);

}  // namespace lighthouse
