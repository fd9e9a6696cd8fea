// Context parallelism: which heads a rank attends to, and how many rows it exchanges for them. Knows no torch.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/context_plan.h"

namespace lighthouse {

/// Which heads a rank attends to: H / W query heads, and the key/value heads that serve them. Where there are fewer of
/// these than ranks, a head goes to several.
struct HeadSpans {
  /// Throws InvalidArgument unless W divides H, and W divides H_kv or H_kv divides W.
  HeadSpans(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks);

  std::vector<Span> query, key;  ///< of each rank

  std::vector<std::vector<Span>> of_qkv() const { return {query, key, key}; }
};

/// Rows that a rank with `own` heads (or rows) exchanges with each of the ranks that have `spans` of rows (or heads).
std::vector<int64_t> exchange_counts(const Span& own, const std::vector<Span>& spans, int64_t batch);

}  // namespace lighthouse
