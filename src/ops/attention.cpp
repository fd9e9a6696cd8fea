// Sections (i) to (vii) put together.
#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "calls/checks.h"
#include "ops/aten_context.h"
#include "ops/inner_attention.h"
#include "ops/option_checks.h"

namespace lighthouse {
namespace {

constexpr const char* kOperation = "lighthouse_attention";

/// The caller's attention with what it returns checked.
InnerAttention checked(const InnerAttention& attention) {
  return [&attention](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    constexpr const char* kName = "the result of `attention`";
    at::Tensor out = attention(q, k, v);
    const calls::TensorView expected = ops::view(q);
    ops::restate_errors([&] {
      calls::check_shape(kOperation, kName, ops::view(out), expected.sizes, "[batch, num_heads, rows, head_dim]",
                         expected);
    });
    TORCH_CHECK_VALUE(out.scalar_type() == q.scalar_type(), kOperation, ": ", kName, " is ", out.scalar_type(),
                      ", but it was given ", q.scalar_type(), "; cast it to that");
    ops::restate_errors([&] { calls::check_heads(kOperation, kName, ops::view(out)); });
    return out;
  };
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

calls::HeadSizes check_tokens(const char* operation, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return ops::restate_errors([&] { return calls::check_tokens(operation, ops::view(q, k, v)); });
}

void check_given_scores(const at::Tensor& q, const at::Tensor& k, const ops::TwoTensors& scores) {
  const auto& [s_qk, s_kq] = scores;
  const int64_t shape[] = {q.size(0), k.size(2), q.size(1)};
  ops::restate_errors([&, &s_qk = s_qk, &s_kq = s_kq] {
    calls::check_shape(kOperation, "s_qk", ops::view(s_qk), shape, "[batch, num_kv_heads, seq_len]", ops::view(q));
    calls::check_scores(kOperation, ops::view(s_qk), ops::view(s_kq));
  });
}

void check_scorer_options(const AttentionOptions& options) {
  const ScoreConfig& score = options.score_config;
  ops::check_scorer("token_scores", score.scorer, score.dilation, options.gate.has_value());
}

/// Scores that the caller made, or else the scorer's.
ops::TwoTensors scores_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const calls::SharedPlan& plan,
                          const AttentionOptions& options) {
  if (!options.scores) return ops::token_scores(q, k, v, options.score_config, options.gate, plan);
  check_given_scores(q, k, *options.scores);
  return *options.scores;
}

void check_device(const char* operation, const at::Tensor& selection, const at::Tensor& x) {
  TORCH_CHECK_VALUE(!selection.defined() || selection.device() == x.device(), operation, ": selection is on ",
                    selection.device(), ", but other arguments are on ", x.device(), "; move all to one device");
}

/// The selection of a call that does not leave it to the norm scorer. No gradient passes through here.
ops::Gathering make_gathering(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const calls::SharedPlan& plan, const AttentionOptions& options) {
  const at::NoGradGuard no_grad;
  if (options.selection) {
    check_device(kOperation, *options.selection, q);
    return ops::invert_selection(kOperation, *options.selection, plan, options.check_selection);
  }
  const auto [s_qk, s_kq] = scores_of(q, k, v, plan, options);
  return ops::select_entries(s_qk, s_kq, plan);
}

}  // namespace

namespace ops {

GatheredRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const calls::SharedPlan& plan, const AttentionOptions& options) {
  check_options(options);
  if (!options.selection && !options.scores) {
    check_scorer_options(options);
    if (options.score_config.scorer == Scorer::kNorm) return gather_by_norm(q, k, v, plan);
  }
  Gathering gathering = make_gathering(q, k, v, plan, options);
  Rows rows = gather_rows(q, k, v, gathering);
  return {std::move(rows), std::move(gathering)};
}

at::Tensor attend(const Rows& rows, const calls::SharedPlan& plan, const AttentionOptions& options) {
  const std::vector<int64_t> num_rows = plan->rows_of_documents();
  return options.attention
             ? attend_each(checked(options.attention), rows.q, rows.k, rows.v, num_rows)
             : stock_attention(rows.q, rows.k, rows.v, num_rows, options.softmax_scale, options.deterministic);
}

}  // namespace ops

namespace {

/// A call whose sequences would none of them get shorter: plain causal attention, [B, N, H, D]. What else the caller
/// gave is checked, and not used.
at::Tensor attend_in_full(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const calls::SharedPlan& plan,
                          const AttentionOptions& options) {
  check_options(options);
  if (options.selection) {
    make_gathering(q, k, v, plan, options);
  } else if (options.scores) {
    check_given_scores(q, k, *options.scores);
  } else {
    check_scorer_options(options);
  }
  const at::Tensor out = ops::attend({q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)}, plan, options);
  return (options.attention ? out : ops::with_any_gradient(out)).transpose(1, 2);
}

}  // namespace

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options) {
  const calls::HeadSizes sizes = check_tokens(kOperation, q, k, v);
  const calls::SharedPlan plan =
      ops::plan_of(kOperation, options.selection_config, sizes.seq_len, sizes.batch, options.cu_seqlens);
  if (plan->sequence().is_full()) return attend_in_full(q, k, v, plan, options);
  const ops::GatheredRows rows = ops::select_and_gather(q, k, v, plan, options);
  return ops::scatter_rows(ops::attend(rows, plan, options), rows.gathering);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::optional<double> softmax_scale, at::OptionalIntArrayRef cu_seqlens,
                            bool deterministic) {
  constexpr const char* kCausal = "causal_attention";
  const calls::HeadSizes sizes = ops::restate_errors([&] { return calls::check_rows(kCausal, ops::view(q, k, v)); });
  ops::check_softmax_scale(kCausal, softmax_scale);
  std::vector<int64_t> num_rows{sizes.seq_len};
  if (cu_seqlens) {
    SelectionConfig every_token;
    every_token.num_levels = 1;
    num_rows = ops::plan_of(kCausal, every_token, sizes.seq_len, sizes.batch, cu_seqlens)->rows_of_documents();
  }
  return ops::with_any_gradient(ops::stock_attention(q, k, v, num_rows, softmax_scale, deterministic));
}

// The public select, gather and scatter: a plan, one index array more, then the functions that do the work.

at::Tensor select(const at::Tensor& s_qk, const at::Tensor& s_kq, const SelectionConfig& config,
                  at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kSelect = "select";
  ops::restate_errors([&] { calls::check_scores(kSelect, ops::view(s_qk), ops::view(s_kq)); });
  return ops::select_entries(s_qk, s_kq, ops::plan_of(kSelect, config, s_qk.size(2), s_qk.size(0), cu_seqlens))
      .selection;
}

Rows gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
            const SelectionConfig& config, at::OptionalIntArrayRef cu_seqlens, bool check_selection) {
  constexpr const char* kGather = "gather";
  const calls::HeadSizes sizes = check_tokens(kGather, q, k, v);
  const calls::SharedPlan plan = ops::plan_of(kGather, config, sizes.seq_len, sizes.batch, cu_seqlens);
  check_device(kGather, selection, q);
  return ops::gather_rows(q, k, v, ops::invert_selection(kGather, selection, plan, check_selection));
}

at::Tensor scatter(const at::Tensor& rows, const at::Tensor& selection, int64_t seq_len, const SelectionConfig& config,
                   at::OptionalIntArrayRef cu_seqlens, bool check_selection) {
  constexpr const char* kScatter = "scatter";
  ops::restate_errors([&] { calls::check_heads(kScatter, "rows", ops::view(rows)); });
  const calls::SharedPlan plan = ops::plan_of(kScatter, config, seq_len, rows.size(0), cu_seqlens);
  check_device(kScatter, selection, rows);
  return ops::scatter_rows(rows, ops::invert_selection(kScatter, selection, plan, check_selection));
}

}  // namespace lighthouse
