// Tensors by name: parameters, buffers, moments, and what files hold of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lighthouse {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Undefined ones have none.
inline int64_t total_bytes(const NamedTensors& tensors) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  return bytes;
}

}  // namespace lighthouse
