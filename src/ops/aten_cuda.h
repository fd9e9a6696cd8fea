// ops/cuda_call.h against ATen.
#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "lighthouse/device_plan.h"
#include "ops/tensor.h"

namespace lighthouse::ops {

/// Makes the device of `like` current while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& like) : guard_(like.device()) {}

 private:
  c10::cuda::CUDAGuard guard_;
};

inline CudaStream current_stream(const Tensor& like) {
  return c10::cuda::getCurrentCUDAStream(like.device().index()).stream();
}

}  // namespace lighthouse::ops
