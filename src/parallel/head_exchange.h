// Context parallelism: rows of all heads on the rank that gathered them <-> all rows, or those that it needs, on the
// rank that attends to some heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/group.h"
#include "parallel/head_spans.h"

namespace lighthouse {

/// Which dimensions of [B, .., .., D] heads and rows are.
struct HeadLayout {
  int64_t heads, rows;
};
inline constexpr HeadLayout kHeadsFirst{1, 2};  ///< [B, H, S, D]
inline constexpr HeadLayout kRowsFirst{2, 1};   ///< [B, S, H, D]

/// Tensors that are exchanged in one message.
struct HeadExchange {
  std::vector<std::vector<HeadBlock>> blocks;  ///< of each tensor and rank, what it attends to
  std::vector<Span> rows;                      ///< of each rank, what it has of all heads
  Group* group;                                ///< outlives the graph
  HeadLayout layout = kHeadsFirst;
};

/// Blocks of one tensor that come from the ranks.
struct ComingBlocks {
  HeadBlock whole;                 ///< what they make up
  std::vector<HeadBlock> parts;    ///< of each rank
  at::Tensor message;              ///< [rows, D], the blocks in the order of ranks
  std::vector<at::Tensor> blocks;  ///< views of it, shaped as the tensor is
};
/// Of all tensors, on their way.
struct ExchangedBlocks {
  std::vector<at::Tensor> sent;
  std::vector<ComingBlocks> tensors;
  HeadLayout layout;
  Pending pending;
};

// Each differentiable by means of the other: every rank must call backward as well. Results are contiguous. What is
// sent is copied only if it does not lie in the order of ranks, and so is what comes: of one sequence, heads first,
// nothing is copied that goes to heads or comes from them; rows first, nothing that comes to heads or goes from them.

/// x [B, H, S_r, D] of this rank's rows, each of as many heads as the exchange says -> [B, heads, rows, D] of what this
/// rank attends to. That of ranks may overlap (keys and values); gradients are then added in fp32 (fp64 for fp64) in
/// the order of ranks, and rounded once.
std::vector<at::Tensor> to_heads(const std::vector<at::Tensor>& x, const HeadExchange& exchange);
/// x [B, heads, rows, D] of what this rank attends to -> [B, H, S_r, D]. That of ranks must not overlap.
std::vector<at::Tensor> to_rows(const std::vector<at::Tensor>& x, const HeadExchange& exchange);

/// to_heads without autograd, under way: what is done before finish, which must be called, hides it.
class SentToHeads {
 public:
  SentToHeads(const std::vector<at::Tensor>& x, const HeadExchange& exchange);
  std::vector<at::Tensor> finish();

 private:
  ExchangedBlocks blocks_;
};

/// Scores [B, heads of this rank, N] without gradient -> [B, H_kv, N_r]; of heads that several ranks have, the largest.
std::vector<at::Tensor> scores_to_rows(const std::vector<at::Tensor>& scores, const std::vector<Span>& heads,
                                       const std::vector<Span>& rows, Group& group);

}  // namespace lighthouse
