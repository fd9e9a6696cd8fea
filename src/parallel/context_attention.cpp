#include "parallel/context_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>
#include <utility>

#include "lighthouse/check.h"
#include "ops/gathering.h"
#include "ops/inner_attention.h"
#include "parallel/head_exchange.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kOperation = "lighthouse_attention";

/// One call, as this rank sees it; kept for backward.
struct Shared : torch::CustomClassHolder {
  Shared(ContextPlan of_plan, Group& of_group) : plan(std::move(of_plan)), group(of_group) {}
  ContextPlan plan;
  Group& group;
  ops::Gathering gathering;

  int64_t rank() const { return group.rank(); }
};
using SharedPtr = c10::intrusive_ptr<Shared>;

/// The block of another rank of x [..], which all show; all blocks have one shape.
at::Tensor from_rank(const at::Tensor& x, int64_t rank, const std::string& what, Group& group) {
  const at::Tensor mine = x.contiguous();
  std::vector<int64_t> shape{group.size()};
  shape.insert(shape.end(), x.sizes().begin(), x.sizes().end());
  const at::Tensor all = at::empty(shape, x.options());
  group.all_gather(all, mine, what).wait();
  return rank >= 0 && rank < group.size() ? all[rank] : at::Tensor();
}

/// Rows of this rank [B, H, S_r, D] added to its tokens, and those of the rank before that reach them.
struct ScatterShared : torch::autograd::Function<ScatterShared> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const SharedPtr& shared) {
    context->saved_data["shared"] = c10::IValue::make_capsule(shared);
    const Shared& call = *shared;
    at::Tensor carried;
    if (call.plan.num_halo > 0) {
      carried = from_rank(ops::carry_rows(rows, call.gathering), call.rank() - 1, "all-gather of carried rows",
                          shared->group);
    }
    return ops::scatter_rows(rows, call.gathering, call.plan.continues_before ? carried : at::Tensor());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["shared"].toCapsule();
    const auto& call = static_cast<const Shared&>(*capsule);
    const at::Tensor dout = gradients[0].contiguous();
    at::Tensor after;
    if (call.plan.num_halo > 0) {
      const int64_t shown = std::min(call.plan.num_halo, dout.size(1));
      const at::Tensor front =
          at::zeros({dout.size(0), call.plan.num_halo, dout.size(2), dout.size(3)}, dout.options());
      front.slice(1, 0, shown).copy_(dout.slice(1, 0, shown));
      after = from_rank(front, call.rank() + 1, "all-gather of gradients behind a cut", call.group);
    }
    const int64_t behind = call.plan.tokens_after;
    return {ops::scatter_rows_backward(dout, call.gathering, behind > 0 ? after.slice(1, 0, behind) : at::Tensor()),
            {}};
  }
};

/// q, k, v of all tokens for this rank's heads, and the scores of theirs back to this rank's tokens.
ops::TwoTensors scores_by_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const calls::SharedPlan& whole, const HeadSpans& heads,
                                const std::vector<Span>& tokens, Group& group) {
  const auto all_tokens = [&](const at::Tensor& x, const std::vector<Span>& spans) {
    return to_heads(x.transpose(1, 2).contiguous(), spans, tokens, group).transpose(1, 2);
  };
  std::optional<at::Tensor> gate;
  if (options.gate) gate = all_tokens(options.gate->unsqueeze(3), heads.query).squeeze(3);
  const auto [s_qk, s_kq] = ops::token_scores(all_tokens(q, heads.query), all_tokens(k, heads.key),
                                              all_tokens(v, heads.key), options.score_config, gate, whole);
  return {scores_to_rows(s_qk, heads.key, tokens, group), scores_to_rows(s_kq, heads.key, tokens, group)};
}

ops::GatheredRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const AttentionOptions& options, const calls::SharedPlan& whole,
                                    const calls::SharedPlan& part, const HeadSpans& heads,
                                    const std::vector<Span>& tokens, Group& group) {
  AttentionOptions local = options;
  if (!options.scores && options.score_config.scorer != "norm") {
    const at::NoGradGuard no_grad;
    local.scores = scores_by_heads(q, k, v, options, whole, heads, tokens, group);
    local.gate = std::nullopt;
  }
  return ops::select_and_gather(q, k, v, part, local);
}

void check(const at::Tensor& q, const std::vector<Span>& tokens, const Group& group) {
  LIGHTHOUSE_CHECK(static_cast<int64_t>(tokens.size()) == group.size(), "context parallelism: tokens of ",
                   tokens.size(), " ranks for a group of ", group.size());
  const int64_t own = tokens[static_cast<size_t>(group.rank())].size();
  LIGHTHOUSE_CHECK(q.dim() == 4 && q.size(1) == own, "context parallelism: q has shape ", q.sizes(), ", rank ",
                   group.rank(), " owns ", own, " tokens; give [batch, ", own, ", num_heads, head_dim]");
}

/// Attention of all heads on rows that lie on the ranks, [B, H, rows of this rank, D]; `whole` knows the documents.
at::Tensor attend_by_heads(const Rows& rows, const std::vector<Span>& of_ranks, const calls::SharedPlan& whole,
                           const AttentionOptions& options, const HeadSpans& heads, Group& group) {
  const Rows of_heads{to_heads(rows.q, heads.query, of_ranks, group), to_heads(rows.k, heads.key, of_ranks, group),
                      to_heads(rows.v, heads.key, of_ranks, group)};
  return to_rows(ops::attend(of_heads, whole, options), heads.query, of_ranks, group);
}

at::Tensor attend_to_tokens(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, const calls::SharedPlan& whole,
                            const AttentionOptions& options, const HeadSpans& heads, Group& group) {
  const auto by_row = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous(); };
  return attend_by_heads({by_row(q), by_row(k), by_row(v)}, tokens, whole, options, heads, group).transpose(1, 2);
}

}  // namespace

std::vector<Span> context_spans(const SelectionConfig& config, int64_t seq_len, int64_t num_ranks,
                                at::OptionalIntArrayRef cu_seqlens) {
  const std::span<const int64_t> offsets =
      cu_seqlens ? std::span<const int64_t>(cu_seqlens->data(), cu_seqlens->size()) : std::span<const int64_t>();
  return token_spans(make_plan(config, seq_len, offsets, "context parallelism"), num_ranks);
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const std::vector<Span>& tokens, Group& group) {
  if (group.size() == 1) return lighthouse_attention(q, k, v, options);
  check(q, tokens, group);
  LIGHTHOUSE_CHECK(!options.selection, kOperation, ": a selection cannot be given to ranks that share a row");
  const HeadSpans heads(q.size(2), k.size(2), group.size());
  const calls::SharedPlan whole =
      ops::plan_of(kOperation, options.selection_config, tokens.back().end, q.size(0), options.cu_seqlens);
  if (whole->sequence().is_full()) return attend_to_tokens(q, k, v, tokens, whole, options, heads, group);

  const auto shared = c10::make_intrusive<Shared>(context_plan(whole->sequence(), tokens, group.rank()), group);
  const auto part = std::make_shared<const calls::CallPlan>(shared->plan.part);
  const ops::GatheredRows rows = select_and_gather(q, k, v, options, whole, part, heads, tokens, group);
  shared->gathering = rows.gathering;
  return ScatterShared::apply(attend_by_heads(rows, shared->plan.rows, whole, options, heads, group), shared);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, Group& group, at::OptionalIntArrayRef cu_seqlens,
                            bool deterministic) {
  check(q, tokens, group);
  AttentionOptions options;
  options.selection_config.num_levels = 1;
  options.deterministic = deterministic;
  const calls::SharedPlan whole =
      ops::plan_of("causal_attention", options.selection_config, tokens.back().end, q.size(0), cu_seqlens);
  const HeadSpans heads(q.size(2), k.size(2), group.size());
  return attend_to_tokens(q, k, v, tokens, whole, options, heads, group);
}

}  // namespace lighthouse
