#include "cuda/rows.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {

void scatter_rows(const ScatterParams& params, const DevicePlan& plan, CudaStream stream) {
  TokensFromRows args{};
  args.tensors[0] = {params.out, params.rows, nullptr, static_cast<int32_t>(params.num_heads)};
  args.index = params.slots;
  set_common(args, params, plan);
  launch_tokens_from_rows<RowMap::kShifted>(args, 1, params.dtype, stream);
}

void scatter_rows_backward(const ScatterBackwardParams& params, const DevicePlan& plan, CudaStream stream) {
  RowsFromTokens args{};
  args.tensors[0] = {params.dout, params.drows, nullptr, static_cast<int32_t>(params.num_heads)};
  args.index = params.selection;
  set_common(args, params, plan);
  launch_rows_from_tokens<RowMap::kShifted>(args, 1, params.dtype, stream);
}

}  // namespace lighthouse
