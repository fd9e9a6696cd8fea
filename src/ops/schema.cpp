// Every operator of the library. Those without an underscore are the public ones: compositions of the others and of
// stock operators, so that they run on every device and trace into graphs that the others do.
#include <torch/library.h>

#include "ops/composite.h"
#include "ops/internal.h"
#include "ops/schema.h"

TORCH_LIBRARY(lighthouse, m) {
  namespace ops = lighthouse::ops;
  m.def(
      "gathered_length(int seq_len, *, int num_levels=3, int pooling_factor=4, int topk, int tile_topk=128, "
      "int[]? cu_seqlens=None) -> int",
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
      "int tile_topk=128, int[]? cu_seqlens=None, bool check_selection=True) -> "
      "(Tensor q_rows, Tensor k_rows, Tensor v_rows)",
      &ops::gather_op);
  m.def(
      "scatter(Tensor rows, Tensor selection, SymInt seq_len, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, int[]? cu_seqlens=None, bool check_selection=True) -> Tensor",
      &ops::scatter_op);
  m.def(
      "causal_attention(Tensor q, Tensor k, Tensor v, *, float? softmax_scale=None, int[]? cu_seqlens=None, "
      "bool deterministic=False) -> Tensor",
      &ops::causal_attention_op);
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, str scorer='norm', int dilation=4, Tensor? gate=None, Tensor? s_qk=None, Tensor? s_kq=None, "
      "bool cover_prefix=True, int[]? cu_seqlens=None, float? softmax_scale=None, Tensor? selection=None, "
      "bool check_selection=True, bool deterministic=False) -> Tensor",
      &ops::attention_op);

  for (const char* schema : ops::kSchemas) m.def(schema);
}

TORCH_LIBRARY_IMPL(lighthouse, CompositeExplicitAutograd, m) {
  namespace ops = lighthouse::ops;
  m.impl("_gather_by_norm", &ops::gather_by_norm_composed);
  m.impl("_offsets_like", &ops::offsets_like_composed);
}
