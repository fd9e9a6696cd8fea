// Whole attentions: forward, forward with backward, both in a CUDA graph, and memory.
#pragma once

#include <vector>

#include "bench/contestant.h"
#include "bench/results.h"

namespace lighthouse::bench {

/// All of them in turn.
std::vector<Passes> measure_passes(const std::vector<Contestant*>& contestants, const Device& device,
                                   const TimingLimits& limits, bool in_graph);

}  // namespace lighthouse::bench
