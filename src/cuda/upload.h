// Small host tables in device memory, carried by the arguments of a kernel: no pinned memory to keep alive, and a CUDA
// graph replays them.
#pragma once

#include <cstdint>
#include <span>

#include "lighthouse/device_plan.h"

namespace lighthouse {

/// Writes `values` to target[0, values.size()) on the device, in stream order; `values` may go when this returns.
/// A launch for every 1,000 of them.
void upload(std::span<const int32_t> values, int32_t* target, CudaStream stream);

/// The same for a table of documents, 55 a launch.
void upload(std::span<const DeviceDocument> documents, DeviceDocument* target, CudaStream stream);

}  // namespace lighthouse
