#include "cuda/rows_from_tokens.cuh"
#include "cuda/tokens_from_rows.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {

void gather_rows(const GatherParams& params, const int32_t* slots, const CoarseMeans& coarse, const DevicePlan& plan,
                 CudaStream stream, const HeadTurn& turn) {
  RowsFromTokens args{};
  set_common(args, params, plan);
  const int64_t h = params.num_heads;
  const int64_t h_kv = params.num_kv_heads;
  args.tensors[0] = row_map_tensor(params.q, params.q_rows, h, h_kv, coarse.q);
  args.tensors[1] = row_map_tensor(params.k, params.k_rows, h_kv, h_kv, coarse.k);
  args.tensors[2] = row_map_tensor(params.v, params.v_rows, h_kv, h_kv, coarse.v);
  args.slots = slots;
  args.selection = params.selection;
  args.expanded = coarse.expanded;
  args.turn = turn;
  launch_rows_from_tokens<RowMap::kMean>(args, 3, params.dtype, stream);
}

void gather_rows_backward(const GatherBackwardParams& params, const DevicePlan& plan, CudaStream stream,
                          const HeadTurn& turn) {
  TokensFromRows args{};
  set_common(args, params, plan);
  const int64_t h = params.num_heads;
  const int64_t h_kv = params.num_kv_heads;
  args.tensors[0] = row_map_tensor(params.dq, params.dq_rows, h, h_kv);
  args.tensors[1] = row_map_tensor(params.dk, params.dk_rows, h_kv, h_kv);
  args.tensors[2] = row_map_tensor(params.dv, params.dv_rows, h_kv, h_kv);
  args.slots = params.slots;
  args.turn = turn;
  launch_tokens_from_rows<RowMap::kMean>(args, 3, params.dtype, stream);
}

bool can_turn_gradients(const GatherBackwardParams& params) {
  const int64_t bytes = params.dtype == DType::kFloat32 ? 4 : 2;
  const auto aligned = [&](const auto& view) { return rows_aligned(view, bytes, 16); };
  return has_turn(params.dtype, params.head_dim, params.num_heads, params.num_kv_heads) && aligned(params.dq_rows) &&
         aligned(params.dk_rows) && aligned(params.dv_rows) && aligned(params.dq) && aligned(params.dk) &&
         aligned(params.dv);
}

}  // namespace lighthouse
