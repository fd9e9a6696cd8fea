#include "cli/cuda_info.h"

#if defined(LIGHTHOUSE_WITH_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace lighthouse::cli {

#if defined(LIGHTHOUSE_WITH_CUDA)

CudaInfo cuda_info() {
  CudaInfo info{true, {}, ""};
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return {true, {}, "no NVIDIA driver is installed"};
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return {true, {}, cudaGetErrorString(status)};
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

CudaInfo cuda_info() { return {false, {}, "this build has no CUDA kernels; it was configured without nvcc"}; }

#endif

}  // namespace lighthouse::cli
