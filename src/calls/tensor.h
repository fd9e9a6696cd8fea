// Tensors as the calls see them, whichever library owns them: memory, type, sizes and strides.
#pragma once

#include <cstdint>
#include <ostream>
#include <span>

#include "lighthouse/dtype.h"
#include "lighthouse/strided_view.h"

namespace lighthouse::calls {

enum class Element : std::uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16, kInt32, kOther };

/// PyTorch's number of the kind of device, and which one of them. Printed as in Python: cuda:0.
struct Device {
  int type;
  int index;
  bool is_cpu() const { return type == 0; }
  bool is_cuda() const { return type == 1; }
  bool operator==(const Device&) const = default;
};
std::ostream& operator<<(std::ostream& stream, const Device& device);

/// Printed as in Python: [2, 3].
struct Sizes {
  std::span<const int64_t> values;
};
std::ostream& operator<<(std::ostream& stream, const Sizes& sizes);

/// Valid as long as the tensor is. Without data: undefined.
struct TensorView {
  void* data = nullptr;  ///< arguments are not written to
  std::span<const int64_t> sizes{};
  std::span<const int64_t> strides{};  ///< empty for a sparse tensor
  Element element = Element::kOther;
  const char* element_name = "";  ///< as PyTorch prints it: Float
  Device device{};
  bool is_defined = false;
  bool is_strided = false;

  int64_t dim() const { return static_cast<int64_t>(sizes.size()); }
  int64_t size(int64_t dimension) const { return sizes[static_cast<size_t>(dimension)]; }
  int64_t stride(int64_t dimension) const { return strides[static_cast<size_t>(dimension)]; }
  bool is_contiguous() const;
  int32_t* integers() const { return static_cast<int32_t*>(data); }
  float* floats() const { return static_cast<float*>(data); }
};

// A view of [B, N, H, D], and of rows [B, H, S, D], as a stage reads or writes it.
inline ConstView by_token(const TensorView& x) { return {x.data, x.stride(0), x.stride(1), x.stride(2)}; }
inline ConstView by_row(const TensorView& x) { return {x.data, x.stride(0), x.stride(2), x.stride(1)}; }
inline View to_token(const TensorView& x) { return {x.data, x.stride(0), x.stride(1), x.stride(2)}; }
inline View to_row(const TensorView& x) { return {x.data, x.stride(0), x.stride(2), x.stride(1)}; }

/// Of one of the first four elements.
DType stage_dtype(Element element);
int64_t bytes_of(Element element);

/// By token: q [B, N, H, D]; k, v [B, N, H_kv, D]. By row: q [B, H, S, D]; k, v [B, H_kv, S, D].
struct Heads {
  TensorView q, k, v;
};

}  // namespace lighthouse::calls
