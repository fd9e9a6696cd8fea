// What the ranks of a run send one another in a step, and how long that takes.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.h"
#include "parallel/traffic.h"

namespace lighthouse {

/// Of stage 1 (`lighthouse`) or stage 2: what rank `rank` of parallel.data x parallel.context sends in one step. Empty
/// for one rank. Left out are what ranks tell one another of a step, some KB. Throws InvalidArgument as layer_shapes.
TrafficByName step_traffic(const RunConfig& config, bool lighthouse, int64_t rank);

/// A rate of collectives between GPUs, one way for each, where it sends `bytes`.
struct LinkRate {
  double bytes;
  double bytes_per_s;
};

/// How GPUs are connected.
struct Links {
  std::vector<LinkRate> all_to_all, all_gather;  ///< in a node, by size, ascending; measured between two GPUs
  double node_bytes_per_s;                       ///< of a GPU to other nodes, one way; assumed
  double node_seconds;                           ///< of a collective between nodes, whatever its size; assumed
  double seconds;                                ///< of a collective in a node that sends next to nothing; assumed
};
/// NVLink of H100s (NV18), and a network of 400 Gbit/s a GPU.
const Links& hopper_links();

/// Seconds of one collective of the kind of `rates`, in which a rank sends `bytes` to num_ranks - 1 others, of which
/// node_ranks - 1 are in its node: those and the others are sent to at the same time.
double collective_seconds(const Links& links, const std::vector<LinkRate>& rates, double bytes, int64_t num_ranks,
                          int64_t node_ranks);

/// Seconds of a step's exchanges, one after another.
struct ExchangeTime {
  double rows = 0;     ///< between ranks that share sequences
  double sums = 0;     ///< of gradients
  double updated = 0;  ///< parameters
};
/// Of the rank that sends most, in nodes of so many GPUs.
ExchangeTime exchange_time(const RunConfig& config, bool lighthouse, const Links& links, int64_t node_size);

}  // namespace lighthouse
