// In place of device_cuda.cpp and stages_cuda.cpp where the build has no CUDA.
#include "bench/device.h"
#include "bench/stages.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {

std::unique_ptr<Device> open_cuda_device() {
  throw InvalidArgument(
      "bench: device is 'cuda', but this build has no CUDA kernels; configure it where nvcc is found");
}

StageTimings time_stages_cuda(const StageBench& /*bench*/) {
  throw InvalidArgument("bench: this build has no CUDA stages to time");
}

at::Tensor selection_by_norm_cuda(const Inputs& /*inputs*/, const AttentionCase& /*attention_case*/) {
  throw InvalidArgument("bench: this build has no CUDA stages to select with");
}

}  // namespace lighthouse::bench
