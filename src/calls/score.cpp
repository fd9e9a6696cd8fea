// Section (ii).
#include "lighthouse/score.h"

#include <algorithm>

#include "calls/calls.h"
#include "calls/checks.h"
#include "calls/run.h"
#include "cuda/upload.h"
#include "lighthouse/cuda_stages.h"

namespace lighthouse::calls {

void token_norms(CallContext& context, const TensorView& x, int64_t num_kv_heads) {
  check_heads("token_norms", "x", x);
  check_group("token_norms", x.size(2), num_kv_heads);
  const TensorView score = context.result({x.size(0), num_kv_heads, x.size(1)}, Element::kFloat32);
  const TokenNormParams params{by_token(x),     stage_dtype(x.element), x.size(0),      x.size(1),
                               x.size(2),       num_kv_heads,           x.size(3),      score.floats(),
                               score.stride(0), score.stride(1),        score.stride(2)};
  run_on(
      x.device, [&] { lighthouse::token_norms(params, context.stream()); },
      [&] { lighthouse::token_norms(params, cpu_threads(context)); });
}

namespace {

GlaScoreParams gla_score_params(const Heads& x, const HeadSizes& sizes, const TensorView& gate, int64_t dilation,
                                const Offsets& cu_seqlens) {
  GlaScoreParams params{};
  params.q = by_token(x.q);
  params.k = by_token(x.k);
  params.v = by_token(x.v);
  params.dtype = stage_dtype(x.q.element);
  params.gate = gate.floats();
  params.gate_batch_stride = gate.stride(0);
  params.gate_seq_stride = gate.stride(1);
  params.gate_head_stride = gate.stride(2);
  params.batch = sizes.batch;
  params.seq_len = sizes.seq_len;
  params.num_heads = sizes.num_heads;
  params.num_kv_heads = sizes.num_kv_heads;
  params.head_dim = sizes.head_dim;
  params.dilation = dilation;
  if (cu_seqlens) params.cu_seqlens = *cu_seqlens;
  return params;
}

void upload_to(CallContext& context, std::span<const int64_t> offsets, int32_t* target) {
  const std::vector<int32_t> values(offsets.begin(), offsets.end());
  if constexpr (kWithCuda) upload(values, target, context.stream());
}

void gla_scores_on_cuda(CallContext& context, const GlaScoreParams& params) {
  int32_t* bounds = context.integers(static_cast<int64_t>(params.cu_seqlens.size()));
  if (bounds != nullptr) upload_to(context, params.cu_seqlens, bounds);
  float* workspace = context.floats(gla_workspace_elements(params.batch, params.seq_len, params.num_heads,
                                                           params.head_dim, params.dilation, params.dtype));
  lighthouse::gla_scores(params, bounds, workspace, context.stream());
}

}  // namespace

void offsets_like(CallContext& context, const TensorView& like, std::span<const int64_t> offsets) {
  check_device("offsets_like", "like", like);
  int32_t* values = context.result({static_cast<int64_t>(offsets.size())}, Element::kInt32).integers();
  run_on(
      like.device, [&] { upload_to(context, offsets, values); },
      [&] { std::copy(offsets.begin(), offsets.end(), values); });
}

void gla_scores(CallContext& context, const Heads& x, const TensorView& gate, int64_t dilation,
                const PlanArgument& plan) {
  constexpr const char* kOperation = "token_scores";
  const HeadSizes sizes = check_tokens(kOperation, x);
  const int64_t gate_shape[] = {sizes.batch, sizes.seq_len, sizes.num_heads};
  check_shape(kOperation, "gate", gate, gate_shape, "[batch, seq_len, num_heads]", x.q);
  check_element(kOperation, "gate", gate, Element::kFloat32);
  LIGHTHOUSE_CHECK(dilation >= 1, kOperation, ": dilation is ", dilation, "; it must be at least 1");
  const Offsets cu_seqlens = plan.get(kOperation, sizes.batch, sizes.seq_len).cu_seqlens();
  GlaScoreParams params = gla_score_params(x, sizes, gate, dilation, cu_seqlens);
  params.s_qk = context.result({sizes.batch, sizes.num_kv_heads, sizes.seq_len}, Element::kFloat32).floats();
  params.s_kq = context.result({sizes.batch, sizes.num_kv_heads, sizes.seq_len}, Element::kFloat32).floats();
  run_on(
      x.q.device, [&] { gla_scores_on_cuda(context, params); },
      [&] { lighthouse::gla_scores(params, cpu_threads(context)); });
}

}  // namespace lighthouse::calls
