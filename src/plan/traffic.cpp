#include "plan/traffic.h"

#include <algorithm>

#include "config/schema.h"
#include "parallel/mesh_shape.h"
#include "parallel/pieces.h"
#include "plan/shape.h"

namespace lighthouse {
namespace {

LayerExchange exchange_of(const RunConfig& config, const LayerShape& shape) {
  const AttentionConfig& attention = config.attention;
  const Sizes sizes(config);
  LayerExchange layer{sizes.batch,           config.model.head_dim, sizes.element, head_spans_of(config),
                      shape.tokens_of_ranks, shape.rows_of_ranks,   shape.attended};
  if (!shape.lighthouse) return layer;
  layer.num_carried = attention.num_levels - 1;
  int64_t span = 1;  // F, the tokens under an entry of the coarsest level
  for (int64_t level = 1; level < attention.num_levels; ++level) span *= attention.pooling_factor;
  layer.num_halo = span - 1;
  layer.scores_by_heads = attention.scorer != Scorer::kNorm;
  layer.has_gate = attention.scorer == Scorer::kGla;
  return layer;
}

/// Of ranks that share sequences, one micro-batch.
TrafficByName shared_traffic(const RunConfig& config, bool lighthouse, int64_t sharer) {
  TrafficByName traffic;
  const std::vector<LayerShape> shapes = layer_shapes(config, lighthouse);
  for (size_t index = 0; index < shapes.size(); ++index) {
    LayerExchange layer = exchange_of(config, shapes[index]);
    add(traffic, forward_traffic(layer, sharer));
    add(traffic, backward_traffic(layer, sharer));
    layer.scores_by_heads = false;  // the selection is kept
    for (int64_t i = times_recomputed(config, static_cast<int64_t>(index)); i > 0; --i) {
      add(traffic, forward_traffic(layer, sharer));
    }
  }
  return traffic;
}

double rate_seconds(const std::vector<LinkRate>& rates, double least, double bytes) {
  LinkRate below{0, 0};
  double below_seconds = least;
  for (const LinkRate& rate : rates) {
    const double seconds = rate.bytes / rate.bytes_per_s;
    if (bytes <= rate.bytes) {
      return below_seconds + (seconds - below_seconds) * (bytes - below.bytes) / (rate.bytes - below.bytes);
    }
    below = rate;
    below_seconds = seconds;
  }
  return bytes / rates.back().bytes_per_s;
}

bool is_all_gather(const std::string& name) {
  return name == kCarriedRows || name == kGradientsBehind || name == kUpdatedParameters;
}

}  // namespace

TrafficByName step_traffic(const RunConfig& config, bool lighthouse, int64_t rank) {
  const MeshShape all = mesh_of(config.parallel);
  const MeshShape mesh(all.data_size(), all.context_size(), rank);
  TrafficByName traffic;
  if (mesh.context_size() > 1) {
    add(traffic, shared_traffic(config, lighthouse, mesh.context_rank()),
        mesh.count_of(config.training.gradient_accumulation));
  }
  if (mesh.size() > 1) {
    add(traffic, gradient_traffic(owned_parameters(config), stretch_elements(kBucketElements, mesh.size()), rank));
  }
  return traffic;
}

const Links& hopper_links() {
  constexpr double kMB = 1e6, kGB = 1e9, kMiB = 1024 * 1024;
  // NCCL between two H100s (NV18, without multicast), measured.
  static const Links links = {
      {{4 * kMB, 31 * kGB}, {36 * kMB, 165 * kGB}, {256 * kMB, 240 * kGB}, {1024 * kMiB, 309 * kGB}},
      {{4 * kMB, 55 * kGB}, {36 * kMB, 187 * kGB}, {256 * kMB, 254 * kGB}, {1024 * kMiB, 276 * kGB}},
      50 * kGB,
      30e-6,
      15e-6};
  return links;
}

double collective_seconds(const Links& links, const std::vector<LinkRate>& rates, double bytes, int64_t num_ranks,
                          int64_t node_ranks) {
  if (num_ranks == 1) return 0;
  const double in_node = bytes * static_cast<double>(node_ranks - 1) / static_cast<double>(num_ranks - 1);
  const double seconds = node_ranks == 1 ? 0 : rate_seconds(rates, links.seconds, in_node);
  if (node_ranks == num_ranks) return seconds;
  return std::max(seconds, links.node_seconds + (bytes - in_node) / links.node_bytes_per_s);
}

ExchangeTime exchange_time(const RunConfig& config, bool lighthouse, const Links& links, int64_t node_size) {
  const MeshShape mesh = mesh_of(config.parallel);
  // Where ranks share rows, keys and values of the first one's are sent most often; the last one has most gradients of
  // them to send back.
  TrafficByName most = step_traffic(config, lighthouse, 0);
  if (head_spans_of(config).num_row_groups > 1) {
    for (const auto& [name, traffic] : step_traffic(config, lighthouse, mesh.context_size() - 1)) {
      most[name].bytes = std::max(most[name].bytes, traffic.bytes);
    }
  }
  ExchangeTime time;
  for (const auto& [name, traffic] : most) {
    const bool sums = name == kSumOfGradients, updated = name == kUpdatedParameters;
    const int64_t num_ranks = sums || updated ? mesh.size() : mesh.context_size();
    const auto count = static_cast<double>(traffic.collectives);
    const double seconds = count * collective_seconds(links, is_all_gather(name) ? links.all_gather : links.all_to_all,
                                                      static_cast<double>(traffic.bytes) / count, num_ranks,
                                                      std::min(num_ranks, node_size));
    (sums ? time.sums : updated ? time.updated : time.rows) += seconds;
  }
  return time;
}

}  // namespace lighthouse
