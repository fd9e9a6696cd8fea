#include "cli/cuda_info.h"

#if defined(LIGHTHOUSE_WITH_CUDA)
#include <cuda_runtime_api.h>

#include "cuda/launch.h"
#endif

namespace lighthouse::cli {

#if defined(LIGHTHOUSE_WITH_CUDA)

CudaInfo cuda_info() {
  CudaInfo info{true, LIGHTHOUSE_CUDA_ARCHITECTURES, LIGHTHOUSE_ARCHITECTURES_RUN, {}, ""};
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    info.why_not = "no NVIDIA driver is installed";
    return info;
  }
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    info.why_not = cudaGetErrorString(status) + cuda_remedy(status);
    return info;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp device{};
    if (cudaGetDeviceProperties(&device, index) != cudaSuccess) continue;
    info.devices.push_back({device.name, std::to_string(device.major) + "." + std::to_string(device.minor),
                            static_cast<int64_t>(device.totalGlobalMem)});
  }
  if (info.devices.empty()) info.why_not = "no CUDA device is visible";
  return info;
}

#else

CudaInfo cuda_info() {
  return {false, "", "", {}, "this build has no CUDA kernels; it was configured without nvcc, or without a GPU"};
}

#endif

}  // namespace lighthouse::cli
