#include "lighthouse/scatter.h"

#include "stages/row_sum.h"

namespace lighthouse {

void scatter_rows(const ScatterParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    tokens_from_rows<T>(params, params.rows, params.out, params.num_heads, scattered_entry, unit_weight<T>,
                        parallel_for);
  });
}

void scatter_rows_backward(const ScatterBackwardParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    rows_from_tokens<T>(params, params.dout, params.drows, params.num_heads, scatter_range, unit_weight<T>,
                        parallel_for);
  });
}

}  // namespace lighthouse
