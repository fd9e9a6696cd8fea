#include "ops/composite.h"

#include <utility>

#include "lighthouse/ops.h"
#include "ops/checks.h"

namespace lighthouse::ops {
namespace {

SelectionConfig make_config(int64_t num_levels, int64_t pooling_factor, int64_t topk, int64_t tile_topk) {
  SelectionConfig config;
  config.num_levels = num_levels;
  config.pooling_factor = pooling_factor;
  config.topk = topk;
  config.tile_topk = tile_topk;
  return config;
}

}  // namespace

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
int64_t gathered_length_op(int64_t seq_len, int64_t num_levels, int64_t pooling_factor, int64_t topk, int64_t tile_topk,
                           at::OptionalIntArrayRef cu_seqlens) {
  constexpr int64_t kBatch = 1;
  return checked_plan("gathered_length", make_config(num_levels, pooling_factor, topk, tile_topk), seq_len, kBatch,
                      cu_seqlens)
      .gathered_len;
}

std::tuple<at::Tensor, at::Tensor> token_scores_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                   std::string scorer, int64_t dilation, const OptionalTensor& gate,
                                                   at::OptionalIntArrayRef cu_seqlens) {
  return token_scores(q, k, v, {std::move(scorer), dilation}, gate, cu_seqlens);
}

at::Tensor select_op(const at::Tensor& s_qk, const at::Tensor& s_kq, int64_t num_levels, int64_t pooling_factor,
                     int64_t topk, int64_t tile_topk, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  SelectionConfig config = make_config(num_levels, pooling_factor, topk, tile_topk);
  config.cover_prefix = cover_prefix;
  return select(s_qk, s_kq, config, cu_seqlens);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> gather_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                         const at::Tensor& selection, int64_t num_levels,
                                                         int64_t pooling_factor, int64_t topk, int64_t tile_topk,
                                                         at::OptionalIntArrayRef cu_seqlens, bool check_selection) {
  Rows rows =
      gather(q, k, v, selection, make_config(num_levels, pooling_factor, topk, tile_topk), cu_seqlens, check_selection);
  return {std::move(rows.q), std::move(rows.k), std::move(rows.v)};
}

at::Tensor scatter_op(const at::Tensor& rows, const at::Tensor& selection, c10::SymInt seq_len, int64_t num_levels,
                      int64_t pooling_factor, int64_t topk, int64_t tile_topk, at::OptionalIntArrayRef cu_seqlens,
                      bool check_selection) {
  return scatter(rows, selection, seq_len.guard_int(__FILE__, __LINE__),
                 make_config(num_levels, pooling_factor, topk, tile_topk), cu_seqlens, check_selection);
}

at::Tensor causal_attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               std::optional<double> softmax_scale, at::OptionalIntArrayRef cu_seqlens,
                               bool deterministic) {
  return causal_attention(q, k, v, softmax_scale, cu_seqlens, deterministic);
}

at::Tensor attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t num_levels,
                        int64_t pooling_factor, int64_t topk, int64_t tile_topk, std::string scorer, int64_t dilation,
                        const OptionalTensor& gate, const OptionalTensor& s_qk, const OptionalTensor& s_kq,
                        bool cover_prefix, at::OptionalIntArrayRef cu_seqlens, std::optional<double> softmax_scale,
                        const OptionalTensor& selection, bool check_selection, bool deterministic) {
  TORCH_CHECK_VALUE(s_qk.has_value() == s_kq.has_value(), "lighthouse_attention: only ", s_qk ? "s_qk" : "s_kq",
                    " is given; pass both scores or neither");
  AttentionOptions options;
  options.selection_config = make_config(num_levels, pooling_factor, topk, tile_topk);
  options.selection_config.cover_prefix = cover_prefix;
  options.score_config = {std::move(scorer), dilation};
  options.gate = gate;
  if (s_qk) options.scores = {*s_qk, *s_kq};
  options.selection = selection;
  options.check_selection = check_selection;
  options.deterministic = deterministic;
  options.cu_seqlens = cu_seqlens;
  options.softmax_scale = softmax_scale;
  return lighthouse_attention(q, k, v, options);
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace lighthouse::ops
