#include "stable/cuda.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "cuda/launch.h"

namespace lighthouse::ops {
namespace {

/// The one C function that lives in libtorch_cuda. It is looked up when the first kernel runs, not linked, so that a
/// library with CUDA kernels loads into a torch without.
auto stream_getter() {
  using Getter = int32_t (*)(int32_t device, void** stream);
  static const auto getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<Getter>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  if (!getter)
    LIGHTHOUSE_FAIL("lighthouse: this torch has no CUDA: libtorch_cuda.so is not loaded; install a torch that has");
  return getter;
}

}  // namespace

DeviceScope::DeviceScope(const Tensor& like) : guard_(like.get_device_index()) {
  LIGHTHOUSE_CUDA_CHECK(cudaSetDevice(like.get_device_index()));
}

CudaStream current_stream(const Tensor& like) {
  void* stream = nullptr;
  if (stream_getter()(like.get_device_index(), &stream) != 0) {
    LIGHTHOUSE_FAIL("lighthouse: torch has no current stream for cuda:", like.get_device_index());
  }
  return static_cast<CudaStream>(stream);
}

}  // namespace lighthouse::ops
