#include "parallel/context_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "lighthouse/check.h"
#include "ops/gathering.h"
#include "ops/inner_attention.h"
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
};
using SharedPtr = c10::intrusive_ptr<Shared>;

/// The block of another rank of x [..], which all show; all blocks have one shape.
at::Tensor from_rank(const at::Tensor& x, int64_t rank, const std::string& what, Group& group) {
  const at::Tensor all = group.of_ranks(x, what);
  return rank >= 0 && rank < group.size() ? all[rank] : at::Tensor();
}

/// Rows of this rank [B, H, S_r, D] added to its tokens, and those of the rank before that reach them.
struct ScatterShared : torch::autograd::Function<ScatterShared> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const SharedPtr& shared) {
    context->saved_data["shared"] = c10::IValue::make_capsule(shared);
    return ops::scatter_rows(rows, shared->gathering, carried_rows(rows, shared->gathering, *shared->row));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["shared"].toCapsule();
    const auto& call = static_cast<const Shared&>(*capsule);
    const at::Tensor dout = gradients[0].contiguous();
    return {ops::scatter_rows_backward(dout, call.gathering, gradients_behind(dout, *call.row)), {}};
  }
};

/// q, k, v of all tokens for this rank's heads, and the scores of theirs back to this rank's tokens.
ops::TwoTensors scores_by_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                const ContextRow& row) {
  const std::vector<HeadBlock> query = blocks_of_heads(row.heads.query, row.share.row_len());
  const std::vector<HeadBlock> key = blocks_of_heads(row.heads.key, row.share.row_len());
  HeadExchange exchange{{query, key, key}, row.share.tokens, &row.group(), kRowsFirst};
  std::vector<at::Tensor> sent{q, k, v};
  if (gate) {
    sent.push_back(gate->unsqueeze(3));
    exchange.blocks.push_back(query);
  }
  const std::vector<at::Tensor> of_heads = to_heads(sent, exchange);
  const std::optional<at::Tensor> its_gate = gate ? std::optional(of_heads[3].squeeze(3)) : std::nullopt;
  const auto [s_qk, s_kq] = ops::token_scores(of_heads[0], of_heads[1], of_heads[2], config, its_gate, row.whole);
  const std::vector<at::Tensor> scores = scores_to_rows({s_qk, s_kq}, row.heads.key, row.share.tokens, row.group());
  return {scores[0], scores[1]};
}

void check(const at::Tensor& q, const ContextRow& row) {
  const int64_t own = row.share.own().size();
  LIGHTHOUSE_CHECK(q.dim() == 4 && q.size(1) == own, "context parallelism: q has shape ", q.sizes(), ", rank ",
                   row.group().rank(), " owns ", own, " tokens; give [batch, ", own, ", num_heads, head_dim]");
}

/// o of this rank's heads, as rows of all heads.
at::Tensor o_to_rows(const at::Tensor& o, const ContextRow& row) {
  return to_rows({o}, exchange_of(row, {row.attended.query}))[0];
}

/// Section (v) of what this rank attends to.
at::Tensor attend_to_piece(const Rows& rows, const AttentionOptions& options, const ContextRow& row) {
  if (row.heads.num_row_groups == 1) return ops::attend(rows, row.whole, options);
  LIGHTHOUSE_CHECK(!options.attention, kOperation, ": `attention` is given, but ", row.group().size(), " ranks share ",
                   row.heads.query.back().end, " heads, so that each has a part of their rows; leave it out, or take ",
                   row.heads.num_head_groups, " ranks");
  const RowPiece piece = row.piece();
  return ops::stock_attention(rows.q, rows.k, rows.v, rows_within(row.whole->rows_of_documents(), piece.queries),
                              options.softmax_scale, options.deterministic, piece.queries.begin - piece.keys.begin);
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
  if (config.scorer == Scorer::kNorm)
    return ops::token_scores(q, k, v, config, gate, row->part);  // of each token alone
  return scores_by_heads(q, k, v, config, gate, *row);
}

ops::GatheredRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const AttentionOptions& options, const SharedRow& row) {
  AttentionOptions local = options;
  if (!options.scores && options.score_config.scorer != Scorer::kNorm) {
    local.scores = token_scores(q, k, v, options.score_config, options.gate, row);
    local.gate = std::nullopt;
  }
  return ops::select_and_gather(q, k, v, row->part, local);
}

HeadExchange exchange_of(const ContextRow& row, std::vector<std::vector<HeadBlock>> heads) {
  if (row.selects()) return {std::move(heads), row.cut.rows, &row.group(), kHeadsFirst};
  return {std::move(heads), row.share.tokens, &row.group(), kRowsFirst};
}

at::Tensor attend_on_heads(const Rows& rows, const AttentionOptions& options, const ContextRow& row) {
  const std::vector<at::Tensor> of_heads = to_heads({rows.q, rows.k, rows.v}, exchange_of(row, row.attended.of_qkv()));
  const at::Tensor &q = of_heads[0], &k = of_heads[1], &v = of_heads[2];
  if (row.selects()) return attend_to_piece({q, k, v}, options, row);
  return attend_to_piece({q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)}, options, row).transpose(1, 2);
}

at::Tensor carried_rows(const at::Tensor& rows, const ops::Gathering& gathering, const ContextRow& row) {
  if (row.cut.num_halo == 0) return {};
  const at::Tensor carried =
      from_rank(ops::carry_rows(rows, gathering), row.group().rank() - 1, kCarriedRows, row.group());
  return row.cut.continues_before ? carried : at::Tensor();
}

at::Tensor gradients_behind(const at::Tensor& dout, const ContextRow& row) {
  const int64_t halo = row.cut.num_halo, behind = row.cut.tokens_after;
  if (halo == 0) return {};
  const int64_t shown = std::min(halo, dout.size(1));
  const at::Tensor front = at::zeros({dout.size(0), halo, dout.size(2), dout.size(3)}, dout.options());
  front.slice(1, 0, shown).copy_(dout.slice(1, 0, shown));
  const at::Tensor after = from_rank(front, row.group().rank() + 1, kGradientsBehind, row.group());
  return behind > 0 ? after.slice(1, 0, behind) : at::Tensor();
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const SharedRow& row) {
  check(q, *row);
  LIGHTHOUSE_CHECK(!options.selection, kOperation, ": a selection cannot be given to ranks that share a row");
  if (!row->selects()) return o_to_rows(attend_on_heads({q, k, v}, options, *row), *row);
  ops::GatheredRows rows = select_and_gather(q, k, v, options, row);
  const at::Tensor o_rows = o_to_rows(attend_on_heads(rows, options, *row), *row);
  return ScatterShared::apply(o_rows, c10::make_intrusive<Shared>(row, std::move(rows.gathering)));
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const std::vector<Span>& tokens, Group& group) {
  if (group.size() == 1) return lighthouse_attention(q, k, v, options);
  return lighthouse_attention(q, k, v, options,
                              row_of(q, k, options.selection_config, options.cu_seqlens, tokens, group));
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, Group& group, at::OptionalIntArrayRef cu_seqlens,
                            bool deterministic) {
  SelectionConfig every_token;
  every_token.num_levels = 1;
  AttentionOptions options;
  options.deterministic = deterministic;
  return lighthouse_attention(q, k, v, options, row_of(q, k, every_token, cu_seqlens, tokens, group));
}

}  // namespace lighthouse
