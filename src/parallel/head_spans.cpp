#include "parallel/head_spans.h"

#include "lighthouse/check.h"

namespace lighthouse {

HeadSpans::HeadSpans(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks) {
  LIGHTHOUSE_CHECK(num_heads % num_ranks == 0, "context parallelism: ", num_heads, " query heads for ", num_ranks,
                   " ranks; the number of ranks must divide the number of heads");
  LIGHTHOUSE_CHECK(num_kv_heads % num_ranks == 0 || num_ranks % num_kv_heads == 0,
                   "context parallelism: ", num_kv_heads, " key/value heads for ", num_ranks,
                   " ranks; one number must divide the other");
  const int64_t group = num_heads / num_kv_heads;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const Span span{rank * num_heads / num_ranks, (rank + 1) * num_heads / num_ranks};
    query.push_back(span);
    key.push_back({span.begin / group, (span.end - 1) / group + 1});
  }
}

std::vector<int64_t> exchange_counts(const Span& own, const std::vector<Span>& spans, int64_t batch) {
  std::vector<int64_t> counts;
  for (const Span& span : spans) counts.push_back(batch * own.size() * span.size());
  return counts;
}

}  // namespace lighthouse
