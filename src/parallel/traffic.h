// What ranks send one another, counted and predicted by the same formulas. Knows no torch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "parallel/context_plan.h"
#include "parallel/head_spans.h"

namespace lighthouse {

/// Collectives of one kind, and what a rank sends to the others in them.
struct Traffic {
  int64_t collectives = 0;
  int64_t bytes = 0;
  Traffic& operator+=(const Traffic& more);
  bool operator==(const Traffic&) const = default;
};
/// By what the collective is called in messages.
using TrafficByName = std::map<std::string, Traffic>;
void add(TrafficByName& sum, const TrafficByName& more, int64_t times = 1);

// The names of what a step of training exchanges.
inline constexpr const char* kRowsForHeads = "all-to-all of rows for heads";
inline constexpr const char* kHeadsForRows = "all-to-all of heads for rows";
inline constexpr const char* kCarriedRows = "all-gather of carried rows";
inline constexpr const char* kGradientsBehind = "all-gather of gradients behind a cut";
inline constexpr const char* kSumOfGradients = "sum of gradients";
inline constexpr const char* kUpdatedParameters = "updated parameters";

/// What `rank` sends in an all-to-all in which it has counts[r] rows for rank r, its own included.
int64_t all_to_all_bytes(const std::vector<int64_t>& counts, int64_t rank, int64_t row_bytes);
/// One all-gather of so many bytes of each of `num_ranks`.
Traffic all_gather_traffic(int64_t num_ranks, int64_t bytes);

/// What of a layer decides its traffic.
struct LayerExchange {
  int64_t batch, head_dim;
  int64_t element;               ///< bytes of the compute dtype
  HeadSpans heads;               ///< of each rank
  std::vector<Span> tokens;      ///< of each rank
  std::vector<Span> rows;        ///< of each rank: gathered ones, or tokens where the layer attends to all
  AttendedBlocks attended;       ///< of them
  int64_t num_carried = 0;       ///< rows a head that a rank shows the one after: L - 1, or 0 where nothing is gathered
  int64_t num_halo = 0;          ///< tokens whose gradients it shows the one before: F - 1, or 0
  bool scores_by_heads = false;  ///< the scorer needs whole rows: q, k, v go to heads, scores come back
  bool has_gate = false;         ///< and a gate of each query head goes with them
};
TrafficByName forward_traffic(const LayerExchange& layer, int64_t rank);
TrafficByName backward_traffic(const LayerExchange& layer, int64_t rank);

/// Of fp32 gradients of `num_elements`, of which `owned` are each rank's, that GradientExchange sums and spreads in
/// stretches of `stretch` elements of each.
TrafficByName gradient_traffic(const std::vector<int64_t>& owned, int64_t stretch, int64_t rank);

}  // namespace lighthouse
