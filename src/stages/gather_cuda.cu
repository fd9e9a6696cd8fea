#include "cuda/rows.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
void gather_rows(const GatherParams& params, const CoarseMeans& coarse, const DevicePlan& plan, CudaStream stream) {
  RowsFromTokens args{};
  set_common(args, params, plan);
  const auto num_heads = static_cast<int32_t>(params.num_heads);
  args.tensors[0] = {params.q, params.q_rows, coarse.q, num_heads};
  args.tensors[1] = {params.k, params.k_rows, coarse.k, args.num_kv_heads};
  args.tensors[2] = {params.v, params.v_rows, coarse.v, args.num_kv_heads};
  args.index = params.selection;
  launch_rows_from_tokens<RowMap::kMean>(args, 3, params.dtype, stream);
}

void gather_rows_backward(const GatherBackwardParams& params, const DevicePlan& plan, CudaStream stream) {
  TokensFromRows args{};
  set_common(args, params, plan);
  const auto num_heads = static_cast<int32_t>(params.num_heads);
  args.tensors[0] = {params.dq, params.dq_rows, nullptr, num_heads};
  args.tensors[1] = {params.dk, params.dk_rows, nullptr, args.num_kv_heads};
  args.tensors[2] = {params.dv, params.dv_rows, nullptr, args.num_kv_heads};
  args.index = params.slots;
  launch_tokens_from_rows<RowMap::kMean>(args, 3, params.dtype, stream);
}

}  // namespace lighthouse
