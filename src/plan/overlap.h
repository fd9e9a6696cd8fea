// What of the sums of gradients over ranks lasts longer than the backward pass that they run beside.
#pragma once

#include <vector>

#include "config/run_config.h"

namespace lighthouse {

/// Seconds that a step takes longer for sums that take `seconds` alone, all buckets together. `backward`: of each layer
/// in the last micro-batch, in the order of the layers. A bucket is exchanged when the first of its layers has ended
/// its backward, and the bucket before it has been exchanged; what is hidden so takes a part of the device.
double exposed_seconds(const RunConfig& config, double seconds, const std::vector<double>& backward);

}  // namespace lighthouse
