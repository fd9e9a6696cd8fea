// What the calls ask of CUDA itself.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/device_plan.h"

namespace lighthouse::calls {

/// Whether a CUDA graph is being captured, when nothing may wait for the device.
bool is_capturing(CudaStream stream);

/// One integer set to 0, in stream order; returns its place.
int32_t* zeroed(int32_t* value, CudaStream stream);

/// Device memory [count] on the host; waits for the stream.
std::vector<int32_t> read_back(const int32_t* values, int64_t count, CudaStream stream);

}  // namespace lighthouse::calls
