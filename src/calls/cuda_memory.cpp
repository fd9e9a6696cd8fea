#include "calls/cuda_memory.h"

#include <cuda_runtime_api.h>

#include "cuda/launch.h"

namespace lighthouse::calls {

bool is_capturing(CudaStream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  LIGHTHOUSE_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

int32_t* zeroed(int32_t* value, CudaStream stream) {
  LIGHTHOUSE_CUDA_CHECK(cudaMemsetAsync(value, 0, sizeof(int32_t), stream));
  return value;
}

std::vector<int32_t> read_back(const int32_t* values, int64_t count, CudaStream stream) {
  std::vector<int32_t> host(static_cast<size_t>(count));
  const size_t bytes = host.size() * sizeof(int32_t);
  LIGHTHOUSE_CUDA_CHECK(cudaMemcpyAsync(host.data(), values, bytes, cudaMemcpyDeviceToHost, stream));
  LIGHTHOUSE_CUDA_CHECK(cudaStreamSynchronize(stream));
  return host;
}

}  // namespace lighthouse::calls
