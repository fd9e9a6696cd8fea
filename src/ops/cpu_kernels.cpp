// CPU kernels: the stages on the memory of tensors.
#ifndef LIGHTHOUSE_STABLE_ABI
#include <torch/library.h>
#endif

#include <algorithm>
#include <utility>

#include "lighthouse/cpu_features.h"
#include "lighthouse/forest.h"
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
      LIGHTHOUSE_FAIL(error.what());
    }
    return true;
  }();
  static const ParallelFor threads = parallel_for;
  (void)checked;
  return threads;
}

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
Tensor token_norms_cpu(const Tensor& x, Size num_kv_heads) {
  Tensor score = prepare_token_norms(x, num_kv_heads);
  token_norms(token_norm_params(x, score), torch_threads());
  return score;
}

TwoTensors gla_scores_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                          OptionalIntegers cu_seqlens) {
  GlaScoresCall call = prepare_gla_scores(q, k, v, gate, dilation, cu_seqlens);
  gla_scores(gla_score_params(q, k, v, gate, dilation, cu_seqlens, call), torch_threads());
  return {std::move(call.s_qk), std::move(call.s_kq)};
}

TwoTensors select_entries_cpu(const Tensor& s_qk, const Tensor& s_kq, Integers layout, bool cover_prefix,
                              OptionalIntegers cu_seqlens) {
  SelectCall call = prepare_select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  const Tensor qk = contiguous(s_qk);
  const Tensor kq = contiguous(s_kq);
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

ThreeTensors gather_rows_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                             const Tensor& slots, Integers layout, OptionalIntegers cu_seqlens) {
  ThreeTensorsCall call = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  gather_rows(gather_params(q, k, v, selection, call), torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

ThreeTensors gather_rows_backward_cpu(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                      const Tensor& selection, const Tensor& slots, Size seq_len, Integers layout,
                                      OptionalIntegers cu_seqlens) {
  ThreeTensorsCall call =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  gather_rows_backward(gather_backward_params(dq_rows, dk_rows, dv_rows, slots, call), torch_threads());
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

Tensor scatter_rows_cpu(const Tensor& rows, const Tensor& selection, const Tensor& slots, Size seq_len, Integers layout,
                        OptionalIntegers cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens);
  scatter_rows(scatter_params(rows, slots, call), torch_threads());
  return call.out;
}

Tensor scatter_rows_backward_cpu(const Tensor& dout, const Tensor& selection, const Tensor& slots, Integers layout,
                                 OptionalIntegers cu_seqlens) {
  OneTensorCall call = prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens);
  scatter_rows_backward(scatter_backward_params(dout, selection, call), torch_threads());
  return call.out;
}

SelectedRows gather_by_norm_cpu(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout, bool cover_prefix,
                                OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "lighthouse_attention";  // the messages of gather_by_norm_cuda
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  checked_plan(kOperation, config_of(layout), sizes.seq_len, sizes.batch, cu_seqlens);
  const int64_t num_kv_heads = k.size(2);
  auto [selection, slots] = select_entries_cpu(token_norms_cpu(q, num_kv_heads), token_norms_cpu(k, num_kv_heads),
                                               layout, cover_prefix, cu_seqlens);
  auto [q_rows, k_rows, v_rows] = gather_rows_cpu(q, k, v, selection, slots, layout, cu_seqlens);
  return {std::move(q_rows), std::move(k_rows), std::move(v_rows), std::move(selection), std::move(slots)};
}

Tensor offsets_like_cpu(const Tensor& like, Integers offsets) {
  Tensor values = empty({static_cast<int64_t>(offsets.size())}, like, ScalarType::Int);
  std::copy(offsets.begin(), offsets.end(), values.mutable_data_ptr<int32_t>());
  return values;
}

}  // namespace

Tensor invert_selection_cpu(const Tensor& selection, Size seq_len, Integers layout, OptionalIntegers cu_seqlens,
                            bool check) {
  InvertSelectionCall call = prepare_invert_selection(selection, seq_len, layout, cu_seqlens);
  InvertSelectionParams params{};
  params.selection = selection.const_data_ptr<int32_t>();
  params.plan = &call.plan;
  params.batch = selection.size(0);
  params.num_kv_heads = selection.size(1);
  params.slots = call.slots.mutable_data_ptr<int32_t>();
  restate_errors([&] {
    if (check) {
      check_selection({params.selection, params.plan, params.batch, params.num_kv_heads}, torch_threads());
    }
    invert_selection(params, torch_threads());
  });
  return call.slots;
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace lighthouse::ops

LIGHTHOUSE_KERNELS(CPU, m) {
  namespace ops = lighthouse::ops;
  m.impl("_token_norms", LIGHTHOUSE_KERNEL(ops::token_norms_cpu));
  m.impl("_gla_scores", LIGHTHOUSE_KERNEL(ops::gla_scores_cpu));
  m.impl("_select_entries", LIGHTHOUSE_KERNEL(ops::select_entries_cpu));
  m.impl("_invert_selection", LIGHTHOUSE_KERNEL(ops::invert_selection_cpu));
  m.impl("_gather_rows", LIGHTHOUSE_KERNEL(ops::gather_rows_cpu));
  m.impl("_gather_rows_backward", LIGHTHOUSE_KERNEL(ops::gather_rows_backward_cpu));
  m.impl("_scatter_rows", LIGHTHOUSE_KERNEL(ops::scatter_rows_cpu));
  m.impl("_scatter_rows_backward", LIGHTHOUSE_KERNEL(ops::scatter_rows_backward_cpu));
  m.impl("_gather_by_norm", LIGHTHOUSE_KERNEL(ops::gather_by_norm_cpu));
  m.impl("_offsets_like", LIGHTHOUSE_KERNEL(ops::offsets_like_cpu));
}
