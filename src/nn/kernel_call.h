// Whether the kernels of this layer take these tensors, and the device and stream of a call.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <initializer_list>

#include "lighthouse/device_plan.h"
#include "lighthouse/dtype.h"

namespace lighthouse::nn {

/// Where this is false, nothing of kernels.h is compiled.
#ifdef LIGHTHOUSE_WITH_CUDA
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

/// Whether x, not empty, has a dtype and device with kernels, its rows of `channels` their number of channels, and
/// every defined tensor, x among them, the address.
inline bool has_kernel(const at::Tensor& x, int64_t channels, std::initializer_list<const at::Tensor*> tensors) {
  if (!kWithCuda || !x.is_cuda() || x.numel() == 0 || channels % 8 != 0) return false;
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16) return false;
  for (const at::Tensor* tensor : tensors) {
    if (tensor->defined() && reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % 16 != 0) return false;
  }
  return true;
}

/// Of a tensor that has kernels.
inline DType kernel_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
}

/// Null for an undefined tensor.
inline const void* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

/// Makes the device of `like` current while it lives; its stream is the current one of that device.
class KernelCall {
 public:
  explicit KernelCall(const at::Tensor& like) : guard_(like.device()) {
    const c10::impl::VirtualGuardImpl device(like.device().type());
    stream_ = static_cast<CudaStream>(device.getStreamNativeHandle(device.getStream(like.device())));
  }
  CudaStream stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  CudaStream stream_;
};

}  // namespace lighthouse::nn
