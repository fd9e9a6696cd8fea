// CPU kernels: the stages on the memory of tensors.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <utility>

#include "lighthouse/cpu_features.h"
#include "lighthouse/select.h"
#include "ops/stage_params.h"

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

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
at::Tensor token_norms_cpu(const at::Tensor& x, c10::SymInt num_kv_heads) {
  at::Tensor score = prepare_token_norms(x, num_kv_heads);
  token_norms(token_norm_params(x, score), torch_threads());
  return score;
}

TwoTensors gla_scores_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                          int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  GlaScoresCall call = prepare_gla_scores(q, k, v, gate, dilation, cu_seqlens);
  gla_scores(gla_score_params(q, k, v, gate, dilation, cu_seqlens, call), torch_threads());
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

ThreeTensors gather_rows_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
                             const at::Tensor& slots, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  gather_rows(gather_params(q, k, v, selection, call), torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

ThreeTensors gather_rows_backward_cpu(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                      const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  gather_rows_backward(gather_backward_params(dq_rows, dk_rows, dv_rows, slots, call), torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

at::Tensor scatter_rows_cpu(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                            c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens);
  scatter_rows(scatter_params(rows, slots, call), torch_threads());
  return call.out;
}

at::Tensor scatter_rows_backward_cpu(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                     at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens);
  scatter_rows_backward(scatter_backward_params(dout, selection, call), torch_threads());
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
