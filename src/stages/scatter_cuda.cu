#include "cuda/rows_from_tokens.cuh"
#include "cuda/tokens_from_rows.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {

void scatter_rows(const ScatterParams& params, const DevicePlan& plan, CudaStream stream) {
  TokensFromRows args{};
  set_common(args, params, plan);
  args.tensors[0] = row_map_tensor(params.out, params.rows, params.num_heads, params.num_kv_heads);
  args.slots = params.slots;
  launch_tokens_from_rows<RowMap::kShifted>(args, 1, params.dtype, stream);
}

void scatter_rows_backward(const ScatterBackwardParams& params, const int32_t* slots, const DevicePlan& plan,
                           CudaStream stream) {
  RowsFromTokens args{};
  set_common(args, params, plan);
  args.tensors[0] = row_map_tensor(params.dout, params.drows, params.num_heads, params.num_kv_heads);
  args.slots = slots;
  args.selection = params.selection;
  launch_rows_from_tokens<RowMap::kShifted>(args, 1, params.dtype, stream);
}

}  // namespace lighthouse
