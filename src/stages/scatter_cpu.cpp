#include "lighthouse/scatter.h"

#include "stages/part_edges.h"
#include "stages/row_sum.h"

namespace lighthouse {

void scatter_rows(const ScatterParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    tokens_from_rows<T>(params, params.rows, params.out, params.num_heads, scattered_entry, unit_weight<T>,
                        parallel_for);
    if (params.carried.data != nullptr) scatter_to_front<T>(params, parallel_for);
  });
}

void scatter_rows_backward(const ScatterBackwardParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    rows_from_tokens<T>(params, params.dout, params.drows, params.num_heads, scatter_range, unit_weight<T>,
                        parallel_for);
    if (params.dout_after.data != nullptr) gather_from_behind<T>(params, parallel_for);
  });
}

void carry_rows(const CarryParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) { copy_last_rows<decltype(element)>(params, parallel_for); });
}

}  // namespace lighthouse
