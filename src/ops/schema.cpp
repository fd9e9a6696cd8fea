// Every operator of the library. Those without an underscore are the public ones: compositions of the others and of
// stock operators, so that they run on every device and trace into graphs that the others do.
#include <torch/library.h>

#include "ops/composite.h"
#include "ops/internal.h"

TORCH_LIBRARY(lighthouse, m) {
  namespace ops = lighthouse::ops;
  m.def("gathered_length(int seq_len, *, int num_levels=3, int pooling_factor=4, int topk, int tile_topk=128) -> int",
        &ops::gathered_length_op);
  m.def(
      "token_scores(Tensor q, Tensor k, Tensor v, *, str scorer='norm', int dilation=4, Tensor? gate=None, "
      "int[]? cu_seqlens=None) -> (Tensor s_qk, Tensor s_kq)",
      &ops::token_scores_op);
  m.def(
      "select(Tensor s_qk, Tensor s_kq, *, int num_levels=3, int pooling_factor=4, int topk, int tile_topk=128, "
      "bool cover_prefix=True, int[]? cu_seqlens=None) -> Tensor",
      &ops::select_op);
  m.def(
      "gather(Tensor q, Tensor k, Tensor v, Tensor selection, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, int[]? cu_seqlens=None) -> (Tensor q_rows, Tensor k_rows, Tensor v_rows)",
      &ops::gather_op);
  m.def(
      "scatter(Tensor rows, Tensor selection, SymInt seq_len, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, int[]? cu_seqlens=None) -> Tensor",
      &ops::scatter_op);
  m.def(
      "causal_attention(Tensor q, Tensor k, Tensor v, *, float? softmax_scale=None, int[]? cu_seqlens=None, "
      "bool deterministic=False) -> Tensor",
      &ops::causal_attention_op);
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, str scorer='norm', int dilation=4, Tensor? gate=None, Tensor? s_qk=None, Tensor? s_kq=None, "
      "bool cover_prefix=True, int[]? cu_seqlens=None, float? softmax_scale=None, Tensor? selection=None, "
      "bool deterministic=False) -> Tensor",
      &ops::attention_op);

  // src/ops/internal.h says what these do.
  m.def("_token_norms(Tensor x, SymInt num_kv_heads) -> Tensor");
  m.def(
      "_gla_scores(Tensor q, Tensor k, Tensor v, Tensor gate, int dilation, int[]? cu_seqlens) -> "
      "(Tensor s_qk, Tensor s_kq)");
  m.def(
      "_select_entries(Tensor s_qk, Tensor s_kq, int[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
      "(Tensor selection, Tensor slots)");
  m.def("_invert_selection(Tensor selection, SymInt seq_len, int[] layout, int[]? cu_seqlens) -> Tensor");
  m.def(
      "_gather_rows(Tensor q, Tensor k, Tensor v, Tensor selection, Tensor slots, int[] layout, int[]? cu_seqlens) -> "
      "(Tensor q_rows, Tensor k_rows, Tensor v_rows)");
  m.def(
      "_gather_rows_backward(Tensor dq_rows, Tensor dk_rows, Tensor dv_rows, Tensor selection, Tensor slots, "
      "SymInt seq_len, int[] layout, int[]? cu_seqlens) -> (Tensor dq, Tensor dk, Tensor dv)");
  m.def(
      "_scatter_rows(Tensor rows, Tensor selection, Tensor slots, SymInt seq_len, int[] layout, int[]? cu_seqlens) -> "
      "Tensor");
  m.def(
      "_scatter_rows_backward(Tensor dout, Tensor selection, Tensor slots, int[] layout, int[]? cu_seqlens) -> "
      "Tensor");
  m.def(
      "_gather_by_norm(Tensor q, Tensor k, Tensor v, int[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
      "(Tensor q_rows, Tensor k_rows, Tensor v_rows, Tensor selection, Tensor slots)");
  m.def("_offsets_like(Tensor like, int[] offsets) -> Tensor");
}

TORCH_LIBRARY_IMPL(lighthouse, CompositeExplicitAutograd, m) {
  namespace ops = lighthouse::ops;
  m.impl("_gather_by_norm", &ops::gather_by_norm_composed);
  m.impl("_offsets_like", &ops::offsets_like_composed);
}
