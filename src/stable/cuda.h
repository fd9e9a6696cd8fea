// ops/cuda_call.h against PyTorch's stable ABI.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "lighthouse/device_plan.h"
#include "ops/tensor.h"

namespace lighthouse::ops {

/// Makes the device of `like` current while it lives, for torch's CUDA runtime and for ours: the library brings its own
/// (cudart_static), so that it need not be of the version that torch was built with, and loads where there is none.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& like);

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

CudaStream current_stream(const Tensor& like);

}  // namespace lighthouse::ops
