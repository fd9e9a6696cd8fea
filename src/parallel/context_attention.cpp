#include "parallel/context_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "lighthouse/check.h"
#include "ops/gathering.h"
#include "ops/inner_attention.h"
#include "parallel/head_exchange.h"
#include "parallel/traffic.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kOperation = "lighthouse_attention";

/// One call, kept for backward.
struct Shared : torch::CustomClassHolder {
  Shared(SharedRow of_row, ops::Gathering of_rows) : row(std::move(of_row)), gathering(std::move(of_rows)) {}
  SharedRow row;
  ops::Gathering gathering;

  const ContextPlan& cut() const { return row->cut; }
  Group& group() const { return row->group(); }
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
    if (call.cut().num_halo > 0) {
      carried = from_rank(ops::carry_rows(rows, call.gathering), call.group().rank() - 1, kCarriedRows, call.group());
    }
    return ops::scatter_rows(rows, call.gathering, call.cut().continues_before ? carried : at::Tensor());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["shared"].toCapsule();
    const auto& call = static_cast<const Shared&>(*capsule);
    const at::Tensor dout = gradients[0].contiguous();
    at::Tensor after;
    if (call.cut().num_halo > 0) {
      const int64_t shown = std::min(call.cut().num_halo, dout.size(1));
      const at::Tensor front =
          at::zeros({dout.size(0), call.cut().num_halo, dout.size(2), dout.size(3)}, dout.options());
      front.slice(1, 0, shown).copy_(dout.slice(1, 0, shown));
      after = from_rank(front, call.group().rank() + 1, kGradientsBehind, call.group());
    }
    const int64_t behind = call.cut().tokens_after;
    return {ops::scatter_rows_backward(dout, call.gathering, behind > 0 ? after.slice(1, 0, behind) : at::Tensor()),
            {}};
  }
};

/// q, k, v of all tokens for this rank's heads, and the scores of theirs back to this rank's tokens.
ops::TwoTensors scores_by_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                const ContextRow& row) {
  const std::vector<Span>& tokens = row.share.tokens;
  const auto all_tokens = [&](const at::Tensor& x, const std::vector<Span>& spans) {
    return to_heads(x.transpose(1, 2).contiguous(), spans, tokens, row.group()).transpose(1, 2);
  };
  const HeadSpans& heads = row.heads;
  std::optional<at::Tensor> of_heads;
  if (gate) of_heads = all_tokens(gate->unsqueeze(3), heads.query).squeeze(3);
  const auto [s_qk, s_kq] = ops::token_scores(all_tokens(q, heads.query), all_tokens(k, heads.key),
                                              all_tokens(v, heads.key), config, of_heads, row.whole);
  return {scores_to_rows(s_qk, heads.key, tokens, row.group()), scores_to_rows(s_kq, heads.key, tokens, row.group())};
}

void check(const at::Tensor& q, const ContextRow& row) {
  const int64_t own = row.share.own().size();
  LIGHTHOUSE_CHECK(q.dim() == 4 && q.size(1) == own, "context parallelism: q has shape ", q.sizes(), ", rank ",
                   row.group().rank(), " owns ", own, " tokens; give [batch, ", own, ", num_heads, head_dim]");
}

/// Attention of all heads on rows that lie on the ranks, [B, H, rows of this rank, D].
at::Tensor attend_by_heads(const Rows& rows, const std::vector<Span>& of_ranks, const AttentionOptions& options,
                           const ContextRow& row) {
  const HeadSpans& heads = row.heads;
  Group& group = row.group();
  const Rows of_heads{to_heads(rows.q, heads.query, of_ranks, group), to_heads(rows.k, heads.key, of_ranks, group),
                      to_heads(rows.v, heads.key, of_ranks, group)};
  return to_rows(ops::attend(of_heads, row.whole, options), heads.query, of_ranks, group);
}

at::Tensor attend_to_tokens(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options, const ContextRow& row) {
  const auto by_row = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous(); };
  return attend_by_heads({by_row(q), by_row(k), by_row(v)}, row.share.tokens, options, row).transpose(1, 2);
}

SharedRow row_of(const at::Tensor& q, const at::Tensor& k, const SelectionConfig& config,
                 at::OptionalIntArrayRef cu_seqlens, const std::vector<Span>& tokens, Group& group) {
  return c10::make_intrusive<ContextRow>(config, q.size(0), cu_seqlens, q.size(2), k.size(2), RowShare{tokens, &group});
}

}  // namespace

std::vector<Span> context_spans(const SelectionConfig& config, int64_t seq_len, int64_t num_ranks,
                                at::OptionalIntArrayRef cu_seqlens) {
  const std::span<const int64_t> offsets =
      cu_seqlens ? std::span<const int64_t>(cu_seqlens->data(), cu_seqlens->size()) : std::span<const int64_t>();
  return token_spans(make_plan(config, seq_len, offsets, "context parallelism"), num_ranks);
}

std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                                const SharedRow& row) {
  const at::NoGradGuard no_grad;
  if (config.scorer == "norm") return ops::token_scores(q, k, v, config, gate, row->part);  // of each token alone
  return scores_by_heads(q, k, v, config, gate, *row);
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const SharedRow& row) {
  check(q, *row);
  LIGHTHOUSE_CHECK(!options.selection, kOperation, ": a selection cannot be given to ranks that share a row");
  if (!row->selects()) return attend_to_tokens(q, k, v, options, *row);
  AttentionOptions local = options;
  if (!options.scores && options.score_config.scorer != "norm") {
    local.scores = token_scores(q, k, v, options.score_config, options.gate, row);
    local.gate = std::nullopt;
  }
  ops::GatheredRows rows = ops::select_and_gather(q, k, v, row->part, local);
  const at::Tensor o_rows = attend_by_heads(rows, row->cut.rows, options, *row);
  return ScatterShared::apply(o_rows, c10::make_intrusive<Shared>(row, std::move(rows.gathering)));
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const std::vector<Span>& tokens, Group& group) {
  if (group.size() == 1) return lighthouse_attention(q, k, v, options);
  return lighthouse_attention(q, k, v, options,
                              row_of(q, k, options.selection_config, options.cu_seqlens, tokens, group));
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SharedRow& row,
                            bool deterministic) {
  check(q, *row);
  AttentionOptions options;
  options.deterministic = deterministic;
  return attend_to_tokens(q, k, v, options, *row);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, Group& group, at::OptionalIntArrayRef cu_seqlens,
                            bool deterministic) {
  SelectionConfig every_token;
  every_token.num_levels = 1;
  return causal_attention(q, k, v, row_of(q, k, every_token, cu_seqlens, tokens, group), deterministic);
}

}  // namespace lighthouse
