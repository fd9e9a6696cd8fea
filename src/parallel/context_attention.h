// Attention of a row of tokens that ranks share: tiles own tokens, heads own attention (context_plan.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "lighthouse/ops.h"
#include "parallel/context_row.h"

namespace lighthouse {

/// Which tokens each rank has, for all layers of `config`'s tiles: token_spans of the plan of the whole row.
/// `cu_seqlens` is empty or of the whole row. Errors as token_spans and make_plan.
std::vector<Span> context_spans(const SelectionConfig& config, int64_t seq_len, int64_t num_ranks,
                                at::OptionalIntArrayRef cu_seqlens = std::nullopt);

/// lighthouse_attention of the whole row: q [B, N_r, H, D] and k, v [B, N_r, H_kv, D] are this rank's tokens, and so is
/// the result; selection and documents are the row's, not the options'. Scores and gate are of this rank's tokens; a
/// selection cannot be given. Bits, of gradients too, are those of one process, where the stock attention's do not
/// depend on the number of heads of a call (on the CPU and with `deterministic`), and there are no fewer key/value
/// heads than ranks.
///
/// A layer exchanges, each way and both in forward and backward, (2 H + 2 H_kv) D rows of S / W, less what stays, in
/// four all-to-alls, and two small all-gathers: L - 1 rows a head in forward, F - 1 tokens in backward. Scorers dilated
/// and gla exchange q, k, v too. Every rank of the group must call it, and backward, in the same order. Throws
/// c10::ValueError, InvalidArgument (on all ranks alike), RankFailure.
at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const SharedRow& row);
/// The same for a row whose selection and documents are those of the options.
at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options, const std::vector<Span>& tokens, Group& group);

/// The scores that it makes: token_scores of the whole row, [B, H_kv, N_r] of this rank's tokens.
std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                                const SharedRow& row);

/// Causal attention over all tokens (stage two, dense layers); of the row only documents, tokens and heads count.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SharedRow& row,
                            bool deterministic = false);
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Span>& tokens, Group& group,
                            at::OptionalIntArrayRef cu_seqlens = std::nullopt, bool deterministic = false);

}  // namespace lighthouse
