#include "calls/tensor.h"

#include <stdexcept>

namespace lighthouse::calls {

std::ostream& operator<<(std::ostream& stream, const Device& device) {
  constexpr int kMeta = 14;
  if (device.is_cpu()) return stream << "cpu";
  if (device.is_cuda()) return stream << "cuda:" << device.index;
  if (device.type == kMeta) return stream << "meta";
  return stream << "device type " << device.type;
}

std::ostream& operator<<(std::ostream& stream, const Sizes& sizes) {
  stream << '[';
  const char* separator = "";
  for (const int64_t size : sizes.values) {
    stream << separator << size;
    separator = ", ";
  }
  return stream << ']';
}

bool TensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int64_t i = dim() - 1; i >= 0; --i) {
    if (size(i) != 1 && stride(i) != expected) return false;
    expected *= size(i);
  }
  return true;
}

DType stage_dtype(Element element) {
  switch (element) {
    case Element::kFloat32:
      return DType::kFloat32;
    case Element::kFloat64:
      return DType::kFloat64;
    case Element::kBFloat16:
      return DType::kBFloat16;
    case Element::kFloat16:
      return DType::kFloat16;
    default:
      throw std::logic_error("lighthouse: a dtype was not checked");
  }
}

int64_t bytes_of(Element element) {
  switch (element) {
    case Element::kFloat64:
      return 8;
    case Element::kBFloat16:
    case Element::kFloat16:
      return 2;
    default:
      return 4;
  }
}

}  // namespace lighthouse::calls
