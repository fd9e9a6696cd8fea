#include "parallel/traffic.h"

#include <algorithm>
#include <numeric>

namespace lighthouse {
namespace {

constexpr int64_t kFp32 = 4;

using BlocksOfTensors = std::vector<std::vector<HeadBlock>>;

/// One message of tensors, of which ranks have `rows` and attend to `blocks`.
Traffic rows_for_heads(const LayerExchange& layer, const BlocksOfTensors& blocks, const std::vector<Span>& rows,
                       int64_t row_bytes, int64_t rank) {
  Traffic traffic{1, 0};
  for (const std::vector<HeadBlock>& of_ranks : blocks) {
    const HeadBlock own{{0, of_ranks.back().heads.end}, rows[static_cast<size_t>(rank)]};
    traffic.bytes += all_to_all_bytes(exchange_counts(own, of_ranks, layer.batch), rank, row_bytes);
  }
  return traffic;
}
/// The way back.
Traffic heads_for_rows(const LayerExchange& layer, const BlocksOfTensors& blocks, const std::vector<Span>& rows,
                       int64_t row_bytes, int64_t rank) {
  Traffic traffic{1, 0};
  for (const std::vector<HeadBlock>& of_ranks : blocks) {
    const std::vector<HeadBlock> of_rows = blocks_of_rows(rows, of_ranks.back().heads.end);
    const HeadBlock& own = of_ranks[static_cast<size_t>(rank)];
    traffic.bytes += all_to_all_bytes(exchange_counts(own, of_rows, layer.batch), rank, row_bytes);
  }
  return traffic;
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

int64_t all_to_all_bytes(const std::vector<int64_t>& counts, int64_t rank, int64_t row_bytes) {
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return (all - counts[static_cast<size_t>(rank)]) * row_bytes;
}

Traffic all_gather_traffic(int64_t num_ranks, int64_t bytes) { return {1, (num_ranks - 1) * bytes}; }

TrafficByName forward_traffic(const LayerExchange& layer, int64_t rank) {
  const HeadSpans& heads = layer.heads;
  const int64_t row_bytes = layer.head_dim * layer.element;
  TrafficByName traffic;
  if (layer.scores_by_heads) {
    const std::vector<HeadBlock> query = blocks_of_heads(heads.query, layer.tokens.back().end);
    const std::vector<HeadBlock> key = blocks_of_heads(heads.key, layer.tokens.back().end);
    Traffic& there = traffic[kRowsForHeads];
    there += rows_for_heads(layer, {query, key, key}, layer.tokens, row_bytes, rank);
    if (layer.has_gate) there.bytes += rows_for_heads(layer, {query}, layer.tokens, kFp32, rank).bytes;
    traffic[kHeadsForRows] += heads_for_rows(layer, {key, key}, layer.tokens, kFp32, rank);  // s_qk, s_kq
  }
  const AttendedBlocks& attended = layer.attended;
  traffic[kRowsForHeads] += rows_for_heads(layer, attended.of_qkv(), layer.rows, row_bytes, rank);  // q, k, v
  traffic[kHeadsForRows] += heads_for_rows(layer, {attended.query}, layer.rows, row_bytes, rank);   // o
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
  const AttendedBlocks& attended = layer.attended;
  traffic[kRowsForHeads] += rows_for_heads(layer, {attended.query}, layer.rows, row_bytes, rank);   // of o
  traffic[kHeadsForRows] += heads_for_rows(layer, attended.of_qkv(), layer.rows, row_bytes, rank);  // of q, k, v
  return traffic;
}

TrafficByName gradient_traffic(const std::vector<int64_t>& owned, int64_t stretch, int64_t rank) {
  const auto num_ranks = static_cast<int64_t>(owned.size());
  const int64_t most = *std::max_element(owned.begin(), owned.end());
  const int64_t collectives = (most + stretch - 1) / stretch;
  TrafficByName traffic;
  traffic[kSumOfGradients] = {collectives, all_to_all_bytes(owned, rank, kFp32)};
  traffic[kUpdatedParameters] = {collectives, all_gather_traffic(num_ranks, most * kFp32).bytes};
  return traffic;
}

}  // namespace lighthouse
