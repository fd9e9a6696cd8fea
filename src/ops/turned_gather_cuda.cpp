#include <ATen/ops/empty.h>

#include "ops/one_pass_gather.h"
#include "ops/stage_params.h"
#include "ops/turned_gather.h"

namespace lighthouse::ops {
namespace {

const float* constants(const char* name, const at::Tensor& values, int64_t count, const at::Tensor& like) {
  TORCH_CHECK_VALUE(values.defined() && values.numel() == count && values.is_contiguous() &&
                        values.scalar_type() == at::kFloat && values.device() == like.device() &&
                        reinterpret_cast<uintptr_t>(values.const_data_ptr()) % 16 == 0,
                    "turned gather: ", name, " must be ", count, " fp32 values on ", like.device(),
                    ", contiguous from a multiple of 16 bytes on");
  return values.const_data_ptr<float>();
}

HeadTurn turn_of(const Angles& angles, int64_t seq_len, int64_t head_dim, const at::Tensor& like) {
  const int64_t count = seq_len * head_dim / 2;
  return {constants("cos", angles.cos, count, like), constants("sin", angles.sin, count, like), nullptr};
}

}  // namespace

std::optional<SelectedRows> gather_turned_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const Angles& angles, at::IntArrayRef layout, bool cover_prefix,
                                                  at::OptionalIntArrayRef cu_seqlens) {
  if (!q.is_cuda()) return std::nullopt;
  GatherByNormCall prepared = prepare_gather_by_norm(q, k, v, layout, cover_prefix, cu_seqlens);
  const GatherParams params = gather_params(q, k, v, prepared.selection, prepared.rows);
  if (!can_turn_tokens(params)) return std::nullopt;
  gather_in_one_pass(params, q, turn_of(angles, q.size(1), q.size(3), q), prepared);
  return selected_rows(prepared);
}

std::optional<at::Tensor> gather_rows_backward_turned(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                                      const at::Tensor& dv_rows, const IndexMaps& maps, int64_t seq_len,
                                                      const Angles& angles, const at::Tensor& row_scale,
                                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  if (!dq_rows.is_cuda()) return std::nullopt;
  const int64_t num_heads = dq_rows.size(1);
  const int64_t num_kv_heads = dk_rows.size(1);
  const int64_t head_dim = dq_rows.size(3);
  at::Tensor packed = at::empty({dq_rows.size(0), seq_len, num_heads + 2 * num_kv_heads, head_dim}, dq_rows.options());
  ThreeTensorsCall call{
      gather_backward_plan(dq_rows, dk_rows, dv_rows, maps.selection, maps.slots, seq_len, layout, cu_seqlens),
      packed.narrow(2, 0, num_heads), packed.narrow(2, num_heads, num_kv_heads),
      packed.narrow(2, num_heads + num_kv_heads, num_kv_heads)};
  const GatherBackwardParams params = gather_backward_params(dq_rows, dk_rows, dv_rows, maps.slots, call);
  if (!can_turn_gradients(params)) return std::nullopt;
  HeadTurn turn = turn_of(angles, seq_len, head_dim, dq_rows);
  turn.row_scale = constants("row_scale", row_scale, dq_rows.size(0) * seq_len, dq_rows);
  restate_cuda_errors([&] {
    CudaCall cuda(dq_rows);
    gather_rows_backward(params, cuda.plan(call.plan), cuda.stream(), turn);
  });
  return packed;
}

}  // namespace lighthouse::ops
