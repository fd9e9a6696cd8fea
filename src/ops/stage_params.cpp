#include "ops/stage_params.h"

namespace lighthouse::ops {
namespace {

/// The members that gather, scatter and their adjoints share; `heads` is [B, *, *, D].
template <typename Params>
Params common_params(const SequencePlan& plan, const Tensor& heads, int64_t num_heads, int64_t num_kv_heads) {
  Params params{};
  params.plan = &plan;
  params.dtype = stage_dtype(heads);
  params.batch = heads.size(0);
  params.num_heads = num_heads;
  params.num_kv_heads = num_kv_heads;
  params.head_dim = heads.size(3);
  return params;
}

}  // namespace

TokenNormParams token_norm_params(const Tensor& x, Tensor& score) {
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
  return params;
}

GlaScoreParams gla_score_params(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                                OptionalIntegers cu_seqlens, GlaScoresCall& call) {
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
  return params;
}

GatherParams gather_params(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                           ThreeTensorsCall& call) {
  auto params = common_params<GatherParams>(call.plan, q, q.size(2), k.size(2));
  params.q = by_token(q);
  params.k = by_token(k);
  params.v = by_token(v);
  params.q_rows = by_row(call.q);
  params.k_rows = by_row(call.k);
  params.v_rows = by_row(call.v);
  params.selection = selection.const_data_ptr<int32_t>();
  return params;
}

GatherBackwardParams gather_backward_params(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                            const Tensor& slots, ThreeTensorsCall& call) {
  auto params = common_params<GatherBackwardParams>(call.plan, dq_rows, dq_rows.size(1), dk_rows.size(1));
  params.dq_rows = by_row(dq_rows);
  params.dk_rows = by_row(dk_rows);
  params.dv_rows = by_row(dv_rows);
  params.dq = by_token(call.q);
  params.dk = by_token(call.k);
  params.dv = by_token(call.v);
  params.slots = slots.const_data_ptr<int32_t>();
  return params;
}

ScatterParams scatter_params(const Tensor& rows, const Tensor& slots, OneTensorCall& call) {
  auto params = common_params<ScatterParams>(call.plan, rows, rows.size(1), slots.size(1));
  params.rows = by_row(rows);
  params.out = by_token(call.out);
  params.slots = slots.const_data_ptr<int32_t>();
  return params;
}

ScatterBackwardParams scatter_backward_params(const Tensor& dout, const Tensor& selection, OneTensorCall& call) {
  auto params = common_params<ScatterBackwardParams>(call.plan, dout, dout.size(2), selection.size(1));
  params.dout = by_token(dout);
  params.drows = by_row(call.out);
  params.selection = selection.const_data_ptr<int32_t>();
  return params;
}

}  // namespace lighthouse::ops
