#include <ATen/ops/from_blob.h>
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "lighthouse/check.h"
#include "model/page_locked.h"

namespace lighthouse {

at::Tensor page_locked(const at::Tensor& memory, at::Device device) {
  if (!device.is_cuda() || memory.numel() == 0) return memory;
  const cudaError_t error = cudaHostRegister(memory.mutable_data_ptr(), memory.nbytes(), cudaHostRegisterDefault);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(detail::concat("cannot page-lock ", memory.nbytes(),
                                            " bytes of host memory: ", cudaGetErrorString(error),
                                            "; ulimit -l and the limits of a container count too"));
  }
  const auto unlock = [memory](void* data) { cudaHostUnregister(data); };
  return at::from_blob(memory.mutable_data_ptr(), memory.sizes(), unlock, memory.options());
}

}  // namespace lighthouse
