// What the kernels of one operator have in common on every device: the arguments checked, the plan made, the outputs
// allocated. A Meta kernel is this and nothing more, so it cannot disagree with the others.
#pragma once

#include "ops/checks.h"
#include "ops/internal.h"

namespace lighthouse::ops {

at::Tensor prepare_token_norms(const at::Tensor& x, const c10::SymInt& num_kv_heads);

struct GlaScoresCall {
  Sizes sizes;
  at::Tensor s_qk, s_kq;
};
GlaScoresCall prepare_gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                                 int64_t dilation, at::OptionalIntArrayRef cu_seqlens);

struct SelectCall {
  SequencePlan plan;
  at::Tensor selection, slots;
};
SelectCall prepare_select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout,
                                  bool cover_prefix, at::OptionalIntArrayRef cu_seqlens);

struct InvertSelectionCall {
  SequencePlan plan;
  at::Tensor slots;
};
InvertSelectionCall prepare_invert_selection(const at::Tensor& selection, const c10::SymInt& seq_len,
                                             at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);

/// Outputs are contiguous: q, k, v by token or by row.
struct ThreeTensorsCall {
  SequencePlan plan;
  at::Tensor q, k, v;
};
ThreeTensorsCall prepare_gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& selection, const at::Tensor& slots, at::IntArrayRef layout,
                                     at::OptionalIntArrayRef cu_seqlens);
ThreeTensorsCall prepare_gather_rows_backward(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                              const at::Tensor& dv_rows, const at::Tensor& selection,
                                              const at::Tensor& slots, const c10::SymInt& seq_len,
                                              at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);

struct GatherByNormCall {
  ThreeTensorsCall rows;
  at::Tensor selection, slots;
};
GatherByNormCall prepare_gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        at::IntArrayRef layout, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens);

struct OneTensorCall {
  SequencePlan plan;
  at::Tensor out;
};
OneTensorCall prepare_scatter_rows(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                                   const c10::SymInt& seq_len, at::IntArrayRef layout,
                                   at::OptionalIntArrayRef cu_seqlens);
OneTensorCall prepare_scatter_rows_backward(const at::Tensor& dout, const at::Tensor& selection,
                                            const at::Tensor& slots, at::IntArrayRef layout,
                                            at::OptionalIntArrayRef cu_seqlens);

}  // namespace lighthouse::ops
