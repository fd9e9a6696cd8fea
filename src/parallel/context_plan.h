// Context parallelism, where things are: tiles own tokens, heads own attention. A rank owns a run of whole tiles and
// their tokens, and does all of a layer there but the attention in the middle, for which the rows of all ranks are
// exchanged for heads (head_spans.h). Knows no torch.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/geometry.h"

namespace lighthouse {

/// Positions [begin, end).
struct Span {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Span&) const = default;
};
/// What two have in common; of none, of size 0.
Span common_part(const Span& a, const Span& b);

/// The tokens of each rank: in order, cut at ends of tiles, next to r N / W. Throws InvalidArgument where there are
/// fewer tiles than ranks.
std::vector<Span> token_spans(const SequencePlan& plan, int64_t num_ranks);

/// The same of a row of N tokens without tiles, where rank r begins at r N / W.
std::vector<Span> equal_spans(int64_t num_tokens, int64_t num_ranks);

/// A row of tokens that ranks share, as one of them sees it.
struct ContextPlan {
  std::vector<Span> tokens, rows;  ///< of each rank, in the whole row
  Span tiles;                      ///< of this rank, in the whole plan
  SequencePlan part;               ///< of this rank: its tiles alone
  bool continues_before = false;   ///< its first document begins on a rank before: that one's rows reach its tokens
  int64_t tokens_after = 0;        ///< tokens of the rank after that its rows are added to, at most F - 1
  int64_t num_halo = 0;            ///< F - 1: what every rank shows of its first tokens
};

/// Of rank `rank`, where the ranks own `tokens`. Throws InvalidArgument where one does not begin and end with a tile: a
/// layer's k, m, L and p may then not be used with this cut.
ContextPlan context_plan(const SequencePlan& whole, const std::vector<Span>& tokens, int64_t rank);

}  // namespace lighthouse
