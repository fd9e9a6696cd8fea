// Attention of a row of tokens that ranks share: tiles own tokens, heads own attention (context_plan.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/gathering.h"
#include "parallel/context_row.h"
#include "parallel/head_exchange.h"

namespace lighthouse {

/// Which tokens each rank has, for all layers of `config`'s tiles: token_spans of the plan of the whole row.
/// `cu_seqlens` is empty or of the whole row. Errors as token_spans and make_plan.
std::vector<Span> context_spans(const SelectionConfig& config, int64_t seq_len, int64_t num_ranks,
                                at::OptionalIntArrayRef cu_seqlens = std::nullopt);

/// lighthouse_attention of the whole row: q [B, N_r, H, D] and k, v [B, N_r, H_kv, D] are this rank's tokens, and so is
/// the result; selection and documents are the row's, not the options'. Scores and gate are of this rank's tokens; a
/// selection cannot be given. Bits, of gradients too, are those of one process, where the stock attention's do not
/// depend on the number of heads of a call (on the CPU and with `deterministic`), and there are no fewer key/value
/// heads than ranks. Those of scores and selection always are. Where the number of ranks does not divide that of heads
/// (HeadSpans), ranks that have the same heads share their rows: outputs and gradients of parts are then merged and
/// added in fp32, always in the same order, and no `attention` can be given.
///
/// A layer exchanges, both in forward and backward, (2 H + 2 H_kv) D rows of S / W, less what stays, in two
/// all-to-alls (q, k and v; o), and a small all-gather: L - 1 rows a head in forward, F - 1 tokens in backward. Ranks
/// that share rows are all sent the keys and values that they need (AttendedBlocks). Scorers
/// dilated and gla exchange q, k, v before too, and their scores. Every rank of the group must call it, and backward,
/// in the same order. Throws c10::ValueError, InvalidArgument (on all ranks alike), RankFailure.
at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const SharedRow& row);
/// The same for a row whose selection and documents are those of the options.
at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const std::vector<Span>& tokens, Group& group);

/// The scores that it makes: token_scores of the whole row, [B, H_kv, N_r] of this rank's tokens.
std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                                const SharedRow& row);

// What lighthouse_attention is made of, for a layer that keeps less in between.

/// Rows of this rank's tiles, of a row that selects. Scores of the whole row where the options give none.
ops::GatheredRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const AttentionOptions& options, const SharedRow& row);
/// What is exchanged of a row: gathered rows, heads first, where it selects, else tokens, rows first.
HeadExchange exchange_of(const ContextRow& row, std::vector<std::vector<HeadBlock>> heads);
/// Attention of the whole row for this rank's heads; `rows` lie as exchange_of says, and so does the result:
/// [B, heads, rows, D] of row.attended.query where the row selects, else [B, rows, heads, D].
at::Tensor attend_on_heads(const Rows& rows, const AttentionOptions& options, const ContextRow& row);
/// What the rank before has carried to this one's tokens, [B, L - 1, H, D] for ops::scatter_rows; may be undefined.
/// Every rank calls it, and the next, without autograd.
at::Tensor carried_rows(const at::Tensor& rows, const ops::Gathering& gathering, const ContextRow& row);
/// Of dout [B, N_r, H, D]: that of the tokens behind this rank's, for ops::scatter_rows_backward; may be undefined.
at::Tensor gradients_behind(const at::Tensor& dout, const ContextRow& row);

/// Causal attention over all tokens (stage two, dense layers).
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, Group& group,
                            at::OptionalIntArrayRef cu_seqlens = std::nullopt, bool deterministic = false);

}  // namespace lighthouse
