// What the kernels of one operator have in common on every device: the arguments checked, the plan made, the outputs
// allocated. A Meta kernel is this and nothing more, so it cannot disagree with the others.
#pragma once

#include "ops/checks.h"

namespace lighthouse::ops {

/// Of `int[] layout` = {num_levels, pooling_factor, topk, tile_topk}, which every operator is given.
SelectionConfig config_of(Integers layout);

Tensor prepare_token_norms(const Tensor& x, const Size& num_kv_heads);

struct GlaScoresCall {
  Sizes sizes;
  Tensor s_qk, s_kq;
};
GlaScoresCall prepare_gla_scores(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate,
                                 int64_t dilation, OptionalIntegers cu_seqlens);

struct SelectCall {
  SequencePlan plan;
  Tensor selection, slots;
};
SelectCall prepare_select_entries(const Tensor& s_qk, const Tensor& s_kq, Integers layout, bool cover_prefix,
                                  OptionalIntegers cu_seqlens);

struct InvertSelectionCall {
  SequencePlan plan;
  Tensor slots;
};
InvertSelectionCall prepare_invert_selection(const Tensor& selection, const Size& seq_len, Integers layout,
                                             OptionalIntegers cu_seqlens);

/// Outputs are contiguous: q, k, v by token or by row.
struct ThreeTensorsCall {
  SequencePlan plan;
  Tensor q, k, v;
};
ThreeTensorsCall prepare_gather_rows(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                                     const Tensor& slots, Integers layout, OptionalIntegers cu_seqlens);
/// The checks and the plan of the next one, without its outputs.
SequencePlan gather_backward_plan(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                  const Tensor& selection, const Tensor& slots, const Size& seq_len, Integers layout,
                                  OptionalIntegers cu_seqlens);
ThreeTensorsCall prepare_gather_rows_backward(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                              const Tensor& selection, const Tensor& slots, const Size& seq_len,
                                              Integers layout, OptionalIntegers cu_seqlens);

struct GatherByNormCall {
  ThreeTensorsCall rows;
  Tensor selection, slots;
};
GatherByNormCall prepare_gather_by_norm(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout,
                                        bool cover_prefix, OptionalIntegers cu_seqlens);

struct OneTensorCall {
  SequencePlan plan;
  Tensor out;
};
OneTensorCall prepare_scatter_rows(const Tensor& rows, const Tensor& selection, const Tensor& slots,
                                   const Size& seq_len, Integers layout, OptionalIntegers cu_seqlens);
OneTensorCall prepare_scatter_rows_backward(const Tensor& dout, const Tensor& selection, const Tensor& slots,
                                            Integers layout, OptionalIntegers cu_seqlens);

/// The CPU kernel of _invert_selection, which says of a wrong selection what is wrong.
Tensor invert_selection_cpu(const Tensor& selection, Size seq_len, Integers layout, OptionalIntegers cu_seqlens,
                            bool check);

}  // namespace lighthouse::ops
