// Sections (i) to (vii) put together.
#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/checks.h"
#include "ops/inner_attention.h"
#include "ops/internal.h"
#include "ops/option_checks.h"

namespace lighthouse {
namespace {

constexpr const char* kOperation = "lighthouse_attention";

/// The caller's attention with what it returns checked.
InnerAttention checked(const InnerAttention& attention) {
  return [&attention](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    at::Tensor out = attention(q, k, v);
    ops::check_shape(kOperation, "the result of `attention`", out, q.sym_sizes(), "[batch, num_heads, rows, head_dim]",
                     q);
    TORCH_CHECK_VALUE(out.scalar_type() == q.scalar_type(), kOperation, ": the result of `attention` is ",
                      out.scalar_type(), ", but it was given ", q.scalar_type(), "; cast it to that");
    ops::check_heads(kOperation, "the result of `attention`", out);
    return out;
  };
}

std::vector<int64_t> rows_of_documents(const SequencePlan& plan) {
  std::vector<int64_t> num_rows;
  for (const Document& document : plan.documents) num_rows.push_back(document.num_rows);
  return num_rows;
}

void check_options(const AttentionOptions& options) {
  ops::check_softmax_scale(kOperation, options.softmax_scale);
  TORCH_CHECK_VALUE(!options.softmax_scale || !options.attention, kOperation, ": softmax_scale is ",
                    options.softmax_scale.value_or(0),
                    ", but `attention` is given and scales by itself; leave one out");
  TORCH_CHECK_VALUE(!options.deterministic || !options.attention, kOperation,
                    ": deterministic is set, but `attention` is given and has to see to that itself; leave one out");
  const char* instead = options.selection ? "selection" : "scores";
  TORCH_CHECK_VALUE(!options.gate || !(options.selection || options.scores), kOperation, ": a gate is given, but ",
                    instead, " too, so no scorer is run; leave one out");
}

void check_given_scores(const at::Tensor& q, const ops::Sizes& sizes, const ops::TwoTensors& scores) {
  const auto& [s_qk, s_kq] = scores;
  const std::vector<c10::SymInt> shape{sizes.batch, sizes.num_kv_heads, sizes.seq_len};
  ops::check_shape(kOperation, "s_qk", s_qk, shape, "[batch, num_kv_heads, seq_len]", q);
  ops::check_scores(kOperation, s_qk, s_kq);
}

void check_scorer_options(const AttentionOptions& options) {
  ops::check_scorer("token_scores", options.score_config.scorer, options.score_config.dilation,
                    options.gate.has_value());
}

/// Scores that the caller made, or else the scorer's.
ops::TwoTensors scores_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ops::Sizes& sizes,
                          const AttentionOptions& options) {
  if (!options.scores) return token_scores(q, k, v, options.score_config, options.gate, options.cu_seqlens);
  check_given_scores(q, sizes, *options.scores);
  return *options.scores;
}

/// The selection of a call that does not leave it to the norm scorer. No gradient passes through here.
ops::IndexMaps index_maps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ops::Sizes& sizes,
                          const AttentionOptions& options) {
  const at::NoGradGuard no_grad;
  const SelectionConfig& config = options.selection_config;
  if (options.selection) {
    return ops::index_maps_of(kOperation, *options.selection, sizes.seq_len, config, options.cu_seqlens,
                              options.check_selection);
  }
  const ops::TwoTensors scores = scores_of(q, k, v, sizes, options);
  const ops::TwoTensors maps = ops::select_entries(std::get<0>(scores), std::get<1>(scores), ops::layout_of(config),
                                                   config.cover_prefix, options.cu_seqlens);
  return {std::get<0>(maps), std::get<1>(maps)};
}

/// Sections (i) to (iv).
ops::SelectedRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Sizes& sizes, const AttentionOptions& options) {
  const auto layout = ops::layout_of(options.selection_config);
  if (!options.selection && !options.scores) {
    check_scorer_options(options);
    if (options.score_config.scorer == "norm") {
      return ops::gather_by_norm(q, k, v, layout, options.selection_config.cover_prefix, options.cu_seqlens);
    }
  }
  ops::IndexMaps maps = index_maps(q, k, v, sizes, options);
  auto [q_rows, k_rows, v_rows] = ops::gather_rows(q, k, v, maps.selection, maps.slots, layout, options.cu_seqlens);
  return {std::move(q_rows), std::move(k_rows), std::move(v_rows), std::move(maps.selection), std::move(maps.slots)};
}

/// Section (v).
ops::AttendedRows attend(const ops::SelectedRows& rows, const SequencePlan& plan, const AttentionOptions& options) {
  const auto& [q_rows, k_rows, v_rows, selection, slots] = rows;
  const std::vector<int64_t> num_rows = rows_of_documents(plan);
  at::Tensor o_rows = options.attention ? ops::attend_each(checked(options.attention), q_rows, k_rows, v_rows, num_rows)
                                        : ops::stock_attention(q_rows, k_rows, v_rows, num_rows, options.softmax_scale,
                                                               options.deterministic);
  return {std::move(o_rows), {selection, slots}, plan.seq_len};
}

/// A call whose sequences would none of them get shorter: plain causal attention, [B, N, H, D]. What else the caller
/// gave is checked, and not used.
at::Tensor attend_in_full(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ops::Sizes& sizes,
                          const SequencePlan& plan, const AttentionOptions& options) {
  if (options.selection) {
    const at::NoGradGuard no_grad;
    ops::index_maps_of(kOperation, *options.selection, sizes.seq_len, options.selection_config, options.cu_seqlens,
                       options.check_selection);
  } else if (options.scores) {
    check_given_scores(q, sizes, *options.scores);
  } else {
    check_scorer_options(options);
  }
  const at::Tensor by_row[] = {q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)};
  const std::vector<int64_t> num_rows = rows_of_documents(plan);
  if (options.attention) {
    return ops::attend_each(checked(options.attention), by_row[0], by_row[1], by_row[2], num_rows).transpose(1, 2);
  }
  return ops::with_any_gradient(ops::stock_attention(by_row[0], by_row[1], by_row[2], num_rows, options.softmax_scale,
                                                     options.deterministic))
      .transpose(1, 2);
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::optional<double> softmax_scale, at::OptionalIntArrayRef cu_seqlens,
                            bool deterministic) {
  constexpr const char* kCausal = "causal_attention";
  const ops::Sizes sizes = ops::check_rows(kCausal, q, k, v);
  ops::check_softmax_scale(kCausal, softmax_scale);
  std::vector<int64_t> num_rows{sizes.seq_len};
  if (cu_seqlens) {
    SelectionConfig every_token;
    every_token.num_levels = 1;
    num_rows = rows_of_documents(ops::checked_plan(kCausal, every_token, sizes.seq_len, sizes.batch, cu_seqlens));
  }
  return ops::with_any_gradient(ops::stock_attention(q, k, v, num_rows, softmax_scale, deterministic));
}

namespace ops {

AttendedRows attend_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionOptions& options) {
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  const SequencePlan plan =
      checked_plan(kOperation, options.selection_config, sizes.seq_len, sizes.batch, options.cu_seqlens);
  check_options(options);
  return attend(select_and_gather(q, k, v, sizes, options), plan, options);
}

AttendedRows attend_selected(const SelectedRows& rows, int64_t seq_len, const AttentionOptions& options) {
  const int64_t batch = std::get<0>(rows).size(0);
  check_options(options);
  return attend(rows, checked_plan(kOperation, options.selection_config, seq_len, batch, options.cu_seqlens), options);
}

}  // namespace ops

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options) {
  const ops::Sizes sizes = ops::check_qkv(kOperation, q, k, v);
  const SequencePlan plan =
      ops::checked_plan(kOperation, options.selection_config, sizes.seq_len, sizes.batch, options.cu_seqlens);
  check_options(options);
  if (plan.is_full()) return attend_in_full(q, k, v, sizes, plan, options);
  const auto [o_rows, maps, seq_len] = attend(select_and_gather(q, k, v, sizes, options), plan, options);
  return ops::scatter_rows(o_rows, maps.selection, maps.slots, seq_len, ops::layout_of(options.selection_config),
                           options.cu_seqlens);
}

}  // namespace lighthouse
