// Memory of the host that a GPU reads and writes by itself.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace lighthouse {

/// The same memory of the host, page-locked for as long as it lives where `device` is a GPU. Not from torch's allocator
/// of such memory, which rounds each tensor up to a power of two. Throws std::runtime_error when it cannot be locked.
at::Tensor page_locked(const at::Tensor& memory, at::Device device);

}  // namespace lighthouse
