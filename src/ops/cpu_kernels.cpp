// CPU kernels: the stages on the memory of tensors.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <utility>

#include "lighthouse/cpu_features.h"
#include "lighthouse/gather.h"
#include "lighthouse/scatter.h"
#include "lighthouse/score.h"
#include "lighthouse/select.h"
#include "ops/prepare.h"

namespace lighthouse::ops {
namespace {

/// torch's threads. Whoever runs a stage comes through here, so this is where a processor that cannot is told from one
/// that can: throwing while the library is loaded would end the program.
const ParallelFor& torch_threads() {
  static const bool checked = [] {
    try {
      require_cpu_features();
    } catch (const std::runtime_error& error) {
      TORCH_CHECK(false, error.what());
    }
    return true;
  }();
  static const ParallelFor parallel_for = [](int64_t count, int64_t grain, const auto& body) {
    at::parallel_for(0, count, grain, body);
  };
  (void)checked;
  return parallel_for;
}

// A view of [B, N, H, D], and of rows [B, H, S, D].
ConstView by_token(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
ConstView by_row(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }
View by_token(at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
View by_row(at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
at::Tensor token_norms_cpu(const at::Tensor& x, c10::SymInt num_kv_heads) {
  at::Tensor score = prepare_token_norms(x, num_kv_heads);
  TokenNormParams params{};
  params.x = by_token(x);
  params.dtype = stage_dtype(x);
  params.batch = x.size(0);
  params.seq_len = x.size(1);
  params.num_heads = x.size(2);
  params.num_kv_heads = score.size(1);
  params.head_dim = x.size(3);
  params.score = score.mutable_data_ptr<float>();
  params.score_batch_stride = score.stride(0);
  params.score_head_stride = score.stride(1);
  params.score_seq_stride = score.stride(2);
  token_norms(params, torch_threads());
  return score;
}

TwoTensors gla_scores_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                          int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  GlaScoresCall call = prepare_gla_scores(q, k, v, gate, dilation, cu_seqlens);
  GlaScoreParams params{};
  params.q = by_token(q);
  params.k = by_token(k);
  params.v = by_token(v);
  params.dtype = stage_dtype(q);
  params.gate = gate.const_data_ptr<float>();
  params.gate_batch_stride = gate.stride(0);
  params.gate_seq_stride = gate.stride(1);
  params.gate_head_stride = gate.stride(2);
  params.batch = q.size(0);
  params.seq_len = q.size(1);
  params.num_heads = q.size(2);
  params.num_kv_heads = k.size(2);
  params.head_dim = q.size(3);
  params.dilation = dilation;
  if (cu_seqlens) params.cu_seqlens = {cu_seqlens->data(), cu_seqlens->size()};
  params.s_qk = call.s_qk.mutable_data_ptr<float>();
  params.s_kq = call.s_kq.mutable_data_ptr<float>();
  gla_scores(params, torch_threads());
  return {std::move(call.s_qk), std::move(call.s_kq)};
}

TwoTensors select_entries_cpu(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout, bool cover_prefix,
                              at::OptionalIntArrayRef cu_seqlens) {
  SelectCall call = prepare_select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  const at::Tensor qk = s_qk.contiguous();
  const at::Tensor kq = s_kq.contiguous();
  SelectParams params{};
  params.s_qk = qk.const_data_ptr<float>();
  params.s_kq = kq.const_data_ptr<float>();
  params.plan = &call.plan;
  params.batch = s_qk.size(0);
  params.num_kv_heads = s_qk.size(1);
  params.selection = call.selection.mutable_data_ptr<int32_t>();
  params.slots = call.slots.mutable_data_ptr<int32_t>();
  select_entries(params, torch_threads());
  return {std::move(call.selection), std::move(call.slots)};
}

at::Tensor invert_selection_cpu(const at::Tensor& selection, c10::SymInt seq_len, at::IntArrayRef layout,
                                at::OptionalIntArrayRef cu_seqlens) {
  InvertSelectionCall call = prepare_invert_selection(selection, seq_len, layout, cu_seqlens);
  InvertSelectionParams params{};
  params.selection = selection.const_data_ptr<int32_t>();
  params.plan = &call.plan;
  params.batch = selection.size(0);
  params.num_kv_heads = selection.size(1);
  params.slots = call.slots.mutable_data_ptr<int32_t>();
  restate_errors([&] { invert_selection(params, torch_threads()); });
  return call.slots;
}

/// The members that gather, scatter and their adjoints share; `heads` is [B, *, *, D].
template <typename Params>
Params common_params(const SequencePlan& plan, const at::Tensor& heads, int64_t num_heads, int64_t num_kv_heads) {
  Params params{};
  params.plan = &plan;
  params.dtype = stage_dtype(heads);
  params.batch = heads.size(0);
  params.num_heads = num_heads;
  params.num_kv_heads = num_kv_heads;
  params.head_dim = heads.size(3);
  return params;
}

ThreeTensors gather_rows_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
                             const at::Tensor& slots, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  auto params = common_params<GatherParams>(call.plan, q, q.size(2), k.size(2));
  params.q = by_token(q);
  params.k = by_token(k);
  params.v = by_token(v);
  params.q_rows = by_row(call.q);
  params.k_rows = by_row(call.k);
  params.v_rows = by_row(call.v);
  params.selection = selection.const_data_ptr<int32_t>();
  gather_rows(params, torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

ThreeTensors gather_rows_backward_cpu(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                      const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  auto params = common_params<GatherBackwardParams>(call.plan, dq_rows, dq_rows.size(1), dk_rows.size(1));
  params.dq_rows = by_row(dq_rows);
  params.dk_rows = by_row(dk_rows);
  params.dv_rows = by_row(dv_rows);
  params.dq = by_token(call.q);
  params.dk = by_token(call.k);
  params.dv = by_token(call.v);
  params.slots = slots.const_data_ptr<int32_t>();
  gather_rows_backward(params, torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

at::Tensor scatter_rows_cpu(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                            c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens);
  auto params = common_params<ScatterParams>(call.plan, rows, rows.size(1), slots.size(1));
  params.rows = by_row(rows);
  params.out = by_token(call.out);
  params.slots = slots.const_data_ptr<int32_t>();
  scatter_rows(params, torch_threads());
  return call.out;
}

at::Tensor scatter_rows_backward_cpu(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                     at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens);
  auto params = common_params<ScatterBackwardParams>(call.plan, dout, dout.size(2), selection.size(1));
  params.dout = by_token(dout);
  params.drows = by_row(call.out);
  params.selection = selection.const_data_ptr<int32_t>();
  scatter_rows_backward(params, torch_threads());
  return call.out;
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace
}  // namespace lighthouse::ops

TORCH_LIBRARY_IMPL(lighthouse, CPU, m) {
  namespace ops = lighthouse::ops;
  m.impl("_token_norms", &ops::token_norms_cpu);
  m.impl("_gla_scores", &ops::gla_scores_cpu);
  m.impl("_select_entries", &ops::select_entries_cpu);
  m.impl("_invert_selection", &ops::invert_selection_cpu);
  m.impl("_gather_rows", &ops::gather_rows_cpu);
  m.impl("_gather_rows_backward", &ops::gather_rows_backward_cpu);
  m.impl("_scatter_rows", &ops::scatter_rows_cpu);
  m.impl("_scatter_rows_backward", &ops::scatter_rows_backward_cpu);
}
