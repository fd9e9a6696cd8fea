// What training asks src/plan.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>

#include "config/run_config.h"

namespace lighthouse {

/// The FLOP/s that the device promises for products in training.precision; nullopt where that is not known.
std::optional<double> peak_flops(const RunConfig& config, at::Device device);

/// Lines for people: what was asked for in `step` (`what`, the allocator's words), what is in use, what takes the
/// memory and which settings would fit.
std::string out_of_memory_message(const RunConfig& config, at::Device device, int64_t step, const std::string& what);

}  // namespace lighthouse
