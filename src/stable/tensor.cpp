#include "ops/tensor.h"

#include <torch/csrc/stable/ops.h>

namespace lighthouse::ops {

std::ostream& operator<<(std::ostream& stream, const SizesView& sizes) {
  stream << '[';
  const char* separator = "";
  for (const int64_t size : sizes) {
    stream << separator << size;
    separator = ", ";
  }
  return stream << ']';
}

std::ostream& operator<<(std::ostream& stream, const DeviceName& name) {
  switch (name.type) {
    case torch::headeronly::DeviceType::CPU:
      return stream << "cpu";
    case torch::headeronly::DeviceType::CUDA:
      return stream << "cuda:" << name.index;
    default:
      return stream << "device type " << static_cast<int>(name.type);
  }
}

Tensor empty(const Shape& shape, const Tensor& like, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

Tensor zeros(int64_t elements, const Tensor& like) {
  return torch::stable::new_zeros(like, {elements}, ScalarType::Int);
}

Tensor on_cpu(const Tensor& x) {
  return torch::stable::to(x, torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

Tensor contiguous(const Tensor& x) { return torch::stable::contiguous(x); }

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  torch::stable::parallel_for(0, count, grain, body);
}

}  // namespace lighthouse::ops
