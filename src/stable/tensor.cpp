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
  // Not new_empty: that goes through boxed values and the dispatcher, which takes three times as long.
  Shape contiguous_strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= shape[i]) contiguous_strides[i] = stride;
  const torch::stable::Device on = like.device();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(shape.size()), shape.data(), contiguous_strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(on.type())), on.index(), &handle));
  return Tensor(handle);
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
