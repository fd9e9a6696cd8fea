// Stage (vi): adds every gathered row back to the tokens it stands for, and the adjoint of that map (vii).
#pragma once

#include <cstdint>

#include "lighthouse/dtype.h"
#include "lighthouse/geometry.h"
#include "lighthouse/parallel_for.h"
#include "lighthouse/strided_view.h"

namespace lighthouse {

/// out[b, j, h, :] = sum over levels l of rows[b, slot(l, e_l), h, :], e_l = (j + 1) / p^l - 1 (scattered_entry).
/// A term is absent where e_l < 0 or the entry was not gathered. Terms are added from level 0 upwards in fp32 (fp64 for
/// fp64) and rounded once, so two runs give the same bits.
struct ScatterParams {
  ConstView rows;        ///< [B, S, H, D] dtype, in gathered order
  View out;              ///< out [B, N, H, D] dtype; every element is written
  const int32_t* slots;  ///< [B, H_kv, plan->num_slots] contiguous
  const SequencePlan* plan;
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
  /// Of a part whose first document begins in the part before (part_of): what carry_rows made there, [B, L-1, H, D].
  /// Terms with e_l = -1 are these. No data: absent.
  ConstView carried = {};
};
void scatter_rows(const ScatterParams& params, const ParallelFor& parallel_for);

/// drows[b, r, h, :] = sum of dout[b, j, h, :] over the tokens j that row r was added to (scatter_range), in order.
struct ScatterBackwardParams {
  ConstView dout;            ///< [B, N, H, D] dtype
  View drows;                ///< out [B, S, H, D]; every element is written
  const int32_t* selection;  ///< [B, H_kv, S] contiguous: row -> flat entry
  const SequencePlan* plan;
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
  /// Of a part whose last document goes on in the part after: dout of the tokens behind its own, [B, tokens_after, H,
  /// D] with tokens_after of that document. No data: rows are added to none of them.
  ConstView dout_after = {};
};
void scatter_rows_backward(const ScatterBackwardParams& params, const ParallelFor& parallel_for);

/// carried[b, l - 1, h, :] = the row of the last entry of level l = 1 ... L-1 of a part's last document, which scatter
/// adds to tokens of the part after; zero where it was not gathered, or where no tokens are after.
struct CarryParams {
  ConstView rows;        ///< [B, S, H, D] dtype, in gathered order
  View carried;          ///< out [B, L-1, H, D]; every element is written
  const int32_t* slots;  ///< [B, H_kv, plan->num_slots] contiguous
  const SequencePlan* plan;
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
};
void carry_rows(const CarryParams& params, const ParallelFor& parallel_for);

}  // namespace lighthouse
