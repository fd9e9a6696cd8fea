// Launching kernels: errors and grids.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace lighthouse {

/// A CUDA call or launch that failed. The message names call, file and line.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What would do, where a GPU or a driver of this machine does not; else empty.
inline std::string cuda_remedy(cudaError_t status) {
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    return "; the driver knows CUDA " + text(driver) + ", and the kernels need one for CUDA " + text(CUDART_VERSION) +
           ": update the driver";
  }
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction) {
    return "; the kernels were not compiled for this GPU: 'lighthouse info' says for which they were. Build with "
           "-DLIGHTHOUSE_CUDA_ARCHITECTURES=native on this machine; compute capability 8.0 is the oldest";
  }
  return "";
}

/// What would do, where the kernels run on no GPU of this compute capability; else empty.
inline std::string old_gpu_remedy(const std::string& name, int major, int minor) {
  if (major >= 8) return "";
  return name + " has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
         ", and the kernels need 8.0 (A100, RTX 30) or newer: use the CPU";
}

inline void cuda_check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(call) + " failed: " + cudaGetErrorString(status) + cuda_remedy(status) + " (" + file +
                  ":" + std::to_string(line) + ")");
}

/// Of the current device.
inline int64_t num_multiprocessors() {
  int device = 0;
  int count = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice", __FILE__, __LINE__);
  cuda_check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute", __FILE__,
             __LINE__);
  return count;
}

/// Batches are the z axis of every grid; kernels step through what exceeds its limit.
inline unsigned batch_blocks(int64_t batch) { return static_cast<unsigned>(batch < 65535 ? batch : 65535); }

}  // namespace lighthouse

#define LIGHTHOUSE_CUDA_CHECK(call) ::lighthouse::cuda_check((call), #call, __FILE__, __LINE__)
