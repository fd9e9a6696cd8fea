// Meta kernels: shapes, dtypes and strides, for fake tensors and traced graphs.
#include <torch/library.h>

#include <utility>

#include "ops/prepare.h"

namespace lighthouse::ops {
namespace {

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
at::Tensor token_norms_meta(const at::Tensor& x, c10::SymInt num_kv_heads) {
  return prepare_token_norms(x, num_kv_heads);
}

TwoTensors gla_scores_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                           int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  GlaScoresCall call = prepare_gla_scores(q, k, v, gate, dilation, cu_seqlens);
  return {std::move(call.s_qk), std::move(call.s_kq)};
}

TwoTensors select_entries_meta(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout,
                               bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  SelectCall call = prepare_select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  return {std::move(call.selection), std::move(call.slots)};
}

at::Tensor invert_selection_meta(const at::Tensor& selection, c10::SymInt seq_len, at::IntArrayRef layout,
                                 at::OptionalIntArrayRef cu_seqlens, bool /*check*/) {
  return prepare_invert_selection(selection, seq_len, layout, cu_seqlens).slots;
}

ThreeTensors gather_rows_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& selection, const at::Tensor& slots, at::IntArrayRef layout,
                              at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

ThreeTensors gather_rows_backward_meta(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                       const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                       at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall call =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  return {std::move(call.q), std::move(call.k), std::move(call.v)};
}

at::Tensor scatter_rows_meta(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                             c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  return prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens).out;
}

at::Tensor scatter_rows_backward_meta(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  return prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens).out;
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace
}  // namespace lighthouse::ops

TORCH_LIBRARY_IMPL(lighthouse, Meta, m) {
  namespace ops = lighthouse::ops;
  m.impl("_token_norms", &ops::token_norms_meta);
  m.impl("_gla_scores", &ops::gla_scores_meta);
  m.impl("_select_entries", &ops::select_entries_meta);
  m.impl("_invert_selection", &ops::invert_selection_meta);
  m.impl("_gather_rows", &ops::gather_rows_meta);
  m.impl("_gather_rows_backward", &ops::gather_rows_backward_meta);
  m.impl("_scatter_rows", &ops::scatter_rows_meta);
  m.impl("_scatter_rows_backward", &ops::scatter_rows_backward_meta);
}
