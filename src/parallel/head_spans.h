// Context parallelism: which heads, and which of their rows, a rank attends to, and how much it exchanges for them.
// Knows no torch.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/context_plan.h"

namespace lighthouse {

/// Which heads each rank attends to, and the key/value heads that serve them. W ranks are G groups of heads times R
/// groups of rows, rank m G + g having heads of group g: H / G query heads. G is as large as can be: it divides W and
/// H, and divides H_kv or is a multiple of it. Where it is all W, heads are all that is shared. A key/value head goes
/// to several ranks where there are fewer of these than ranks.
struct HeadSpans {
  /// Throws InvalidArgument unless H_kv divides H.
  HeadSpans(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks);

  int64_t num_head_groups, num_row_groups;  ///< G, R
  std::vector<Span> query, key;             ///< of each rank

  std::vector<std::vector<Span>> of_qkv() const { return {query, key, key}; }
};

/// Some heads of some rows.
struct HeadBlock {
  Span heads, rows;
  int64_t size() const { return heads.size() * rows.size(); }
};
HeadBlock common_part(const HeadBlock& a, const HeadBlock& b);

/// Of each rank, its heads of all rows.
std::vector<HeadBlock> blocks_of_heads(const std::vector<Span>& heads, int64_t num_rows);
/// Of each rank, all heads of its rows.
std::vector<HeadBlock> blocks_of_rows(const std::vector<Span>& rows, int64_t num_heads);

/// What each rank attends to: queries of its heads, all or a piece (row_pieces.h) of them, and the keys and values that
/// they see.
struct AttendedBlocks {
  /// Throws InvalidArgument as row_pieces.
  AttendedBlocks(const HeadSpans& heads, const std::vector<int64_t>& document_rows);

  std::vector<HeadBlock> query, key;  ///< of each rank

  std::vector<std::vector<HeadBlock>> of_qkv() const { return {query, key, key}; }
};

/// Rows of one head that a rank with `own` exchanges with each of the ranks that have `blocks`.
std::vector<int64_t> exchange_counts(const HeadBlock& own, const std::vector<HeadBlock>& blocks, int64_t batch);

}  // namespace lighthouse
