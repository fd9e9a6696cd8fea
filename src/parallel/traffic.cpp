#include "parallel/traffic.h"

#include <algorithm>
#include <numeric>

namespace lighthouse {
namespace {

constexpr int64_t kFp32 = 4;

/// Of x [B, H, rows, D] whose heads are `heads`, and the way back.
Traffic rows_for_heads(const LayerExchange& layer, const std::vector<Span>& heads, const std::vector<Span>& rows,
                       int64_t row_bytes, int64_t rank) {
  return all_to_all_traffic(exchange_counts(rows[static_cast<size_t>(rank)], heads, layer.batch), rank, row_bytes);
}
Traffic heads_for_rows(const LayerExchange& layer, const std::vector<Span>& heads, const std::vector<Span>& rows,
                       int64_t row_bytes, int64_t rank) {
  return all_to_all_traffic(exchange_counts(heads[static_cast<size_t>(rank)], rows, layer.batch), rank, row_bytes);
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& more) {
  collectives += more.collectives;
  bytes += more.bytes;
  return *this;
}

void add(TrafficByName& sum, const TrafficByName& more, int64_t times) {
  for (const auto& [name, traffic] : more) sum[name] += {times * traffic.collectives, times * traffic.bytes};
}

Traffic all_to_all_traffic(const std::vector<int64_t>& counts, int64_t rank, int64_t row_bytes) {
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return {1, (all - counts[static_cast<size_t>(rank)]) * row_bytes};
}

Traffic all_gather_traffic(int64_t num_ranks, int64_t bytes) { return {1, (num_ranks - 1) * bytes}; }

TrafficByName forward_traffic(const LayerExchange& layer, int64_t rank) {
  const HeadSpans& heads = layer.heads;
  const int64_t row_bytes = layer.head_dim * layer.element;
  TrafficByName traffic;
  if (layer.scores_by_heads) {
    for (const auto* spans : {&heads.query, &heads.key, &heads.key}) {
      traffic[kRowsForHeads] += rows_for_heads(layer, *spans, layer.tokens, row_bytes, rank);
    }
    if (layer.has_gate) traffic[kRowsForHeads] += rows_for_heads(layer, heads.query, layer.tokens, kFp32, rank);
    for (int score = 0; score < 2; ++score) {  // s_qk, s_kq
      traffic[kHeadsForRows] += heads_for_rows(layer, heads.key, layer.tokens, kFp32, rank);
    }
  }
  for (const auto* spans : {&heads.query, &heads.key, &heads.key}) {  // q, k, v
    traffic[kRowsForHeads] += rows_for_heads(layer, *spans, layer.rows, row_bytes, rank);
  }
  traffic[kHeadsForRows] += heads_for_rows(layer, heads.query, layer.rows, row_bytes, rank);  // o
  if (layer.num_carried > 0) {
    const int64_t shown = layer.batch * heads.query.back().end * layer.num_carried * row_bytes;
    traffic[kCarriedRows] += all_gather_traffic(static_cast<int64_t>(layer.rows.size()), shown);
  }
  return traffic;
}

TrafficByName backward_traffic(const LayerExchange& layer, int64_t rank) {
  const HeadSpans& heads = layer.heads;
  const int64_t row_bytes = layer.head_dim * layer.element;
  TrafficByName traffic;
  if (layer.num_halo > 0) {
    const int64_t shown = layer.batch * heads.query.back().end * layer.num_halo * row_bytes;
    traffic[kGradientsBehind] += all_gather_traffic(static_cast<int64_t>(layer.rows.size()), shown);
  }
  traffic[kRowsForHeads] += rows_for_heads(layer, heads.query, layer.rows, row_bytes, rank);  // of o
  for (const auto* spans : {&heads.query, &heads.key, &heads.key}) {                          // of q, k, v
    traffic[kHeadsForRows] += heads_for_rows(layer, *spans, layer.rows, row_bytes, rank);
  }
  return traffic;
}

TrafficByName gradient_traffic(const std::vector<int64_t>& owned, int64_t stretch, int64_t rank) {
  const auto num_ranks = static_cast<int64_t>(owned.size());
  const int64_t most = *std::max_element(owned.begin(), owned.end());
  const int64_t collectives = (most + stretch - 1) / stretch;
  TrafficByName traffic;
  traffic[kSumOfGradients] = {collectives, all_to_all_traffic(owned, rank, kFp32).bytes};
  traffic[kUpdatedParameters] = {collectives, all_gather_traffic(num_ranks, most * kFp32).bytes};
  return traffic;
}

}  // namespace lighthouse
