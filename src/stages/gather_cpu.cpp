#include "lighthouse/gather.h"

#include "stages/row_sum.h"

namespace lighthouse {

void gather_rows(const GatherParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    const auto gather = [&](const ConstView& x, const View& x_rows, int64_t num_heads) {
      rows_from_tokens<T>(params, x, x_rows, num_heads, entry_window, mean_weight<T>, parallel_for);
    };
    gather(params.q, params.q_rows, params.num_heads);
    gather(params.k, params.k_rows, params.num_kv_heads);
    gather(params.v, params.v_rows, params.num_kv_heads);
  });
}

void gather_rows_backward(const GatherBackwardParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) {
    using T = decltype(element);
    const auto gather_backward = [&](const ConstView& dx_rows, const View& dx, int64_t num_heads) {
      tokens_from_rows<T>(params, dx_rows, dx, num_heads, entry_holding, mean_weight<T>, parallel_for);
    };
    gather_backward(params.dq_rows, params.dq, params.num_heads);
    gather_backward(params.dk_rows, params.dk, params.num_kv_heads);
    gather_backward(params.dv_rows, params.dv, params.num_kv_heads);
  });
}

}  // namespace lighthouse
