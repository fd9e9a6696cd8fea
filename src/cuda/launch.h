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

inline void cuda_check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(call) + " failed: " + cudaGetErrorString(status) + " (" + file + ":" +
                  std::to_string(line) + ")");
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
