// Device memory for tests.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "cuda/launch.h"
#include "support/gpu_gate.h"

namespace lighthouse::cuda_test {

inline bool have_device() {
  int count = 0;
  return test_support::gpu_gate(cudaGetDeviceCount(&count) == cudaSuccess && count > 0);
}

/// Device memory filled with 0xFF bytes (NaN, -1) so that unwritten elements show.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    const size_t bytes = std::max<size_t>(size, 1) * sizeof(T);
    LIGHTHOUSE_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), bytes));
    LIGHTHOUSE_CUDA_CHECK(cudaMemset(data_, 0xFF, bytes));
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    LIGHTHOUSE_CUDA_CHECK(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> copy(size_);
    LIGHTHOUSE_CUDA_CHECK(cudaMemcpy(copy.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

}  // namespace lighthouse::cuda_test
