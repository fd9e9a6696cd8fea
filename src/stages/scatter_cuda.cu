#include "cuda/part_edges.cuh"
#include "cuda/rows_from_tokens.cuh"
#include "cuda/tokens_from_rows.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

void scatter_to_front(const ScatterParams& params, CudaStream stream) {
  const Document& document = params.plan->documents.front();
  EdgeArgs args = edge_args(params, document, params.slots, document.tokens_reached());
  args.inside = params.rows;
  args.outside = params.carried;
  args.out = params.out;
  launch_edge(args, params.dtype, [&](auto element, unsigned blocks) {
    scatter_to_front_kernel<decltype(element)><<<blocks, kEdgeThreads, 0, stream>>>(args);
  });
}

void gather_from_behind(const ScatterBackwardParams& params, const int32_t* slots, const DevicePlan& plan,
                        CudaStream stream) {
  const Document& document = params.plan->documents.back();
  if (document.tokens_after == 0) return;
  EdgeArgs args = edge_args(params, document, slots, document.pyramid.num_levels - 1);
  args.inside = params.dout;
  args.outside = params.dout_after;
  args.out = params.drows;
  args.by_tree = sums_by_unit(plan);
  launch_edge(args, params.dtype, [&](auto element, unsigned blocks) {
    gather_from_behind_kernel<decltype(element)><<<blocks, kEdgeThreads, 0, stream>>>(args);
  });
}

}  // namespace

void scatter_rows(const ScatterParams& params, const DevicePlan& plan, CudaStream stream) {
  TokensFromRows args{};
  set_common(args, params, plan);
  args.tensors[0] = row_map_tensor(params.out, params.rows, params.num_heads, params.num_kv_heads);
  args.slots = params.slots;
  launch_tokens_from_rows<RowMap::kShifted>(args, 1, params.dtype, stream);
  if (params.carried.data != nullptr) scatter_to_front(params, stream);
}

void scatter_rows_backward(const ScatterBackwardParams& params, const int32_t* slots, const DevicePlan& plan,
                           CudaStream stream) {
  RowsFromTokens args{};
  set_common(args, params, plan);
  args.tensors[0] = row_map_tensor(params.dout, params.drows, params.num_heads, params.num_kv_heads);
  args.slots = slots;
  args.selection = params.selection;
  launch_rows_from_tokens<RowMap::kShifted>(args, 1, params.dtype, stream);
  if (params.dout_after.data != nullptr) gather_from_behind(params, slots, plan, stream);
}

void carry_rows(const CarryParams& params, CudaStream stream) {
  EdgeArgs args = edge_args(params, params.plan->documents.back(), params.slots, params.plan->config.num_levels - 1);
  args.inside = params.rows;
  args.out = params.carried;
  launch_edge(args, params.dtype, [&](auto element, unsigned blocks) {
    carry_rows_kernel<decltype(element)><<<blocks, kEdgeThreads, 0, stream>>>(args);
  });
}

}  // namespace lighthouse
