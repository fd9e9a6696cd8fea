// ops/tensor.h against PyTorch's stable ABI, of torch 2.10 and newer (TORCH_TARGET_VERSION): no symbol of libtorch is
// used but C functions that PyTorch keeps. Sizes are numbers; graphs are traced with the fake kernels in Python.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <stdexcept>

#include "lighthouse/check.h"

namespace lighthouse::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Size = int64_t;
using Integers = torch::headeronly::IntHeaderOnlyArrayRef;
using OptionalIntegers = std::optional<Integers>;

/// Sizes that can be printed: [2, 3].
class SizesView : public Integers {
 public:
  using Integers::Integers;
  SizesView(Integers values) : Integers(values) {}  // NOLINT(google-explicit-constructor)
};
std::ostream& operator<<(std::ostream& stream, const SizesView& sizes);

/// Printed as in Python: cuda:0.
struct DeviceName {
  torch::headeronly::DeviceType type;
  int32_t index;
  bool operator==(const DeviceName&) const = default;
};
std::ostream& operator<<(std::ostream& stream, const DeviceName& name);

inline Size size(const Tensor& x, int64_t dimension) { return x.size(dimension); }
inline Size stride(const Tensor& x, int64_t dimension) { return x.stride(dimension); }
inline SizesView sizes(const Tensor& x) { return x.sizes(); }
inline SizesView strides(const Tensor& x) { return x.strides(); }
inline DeviceName device(const Tensor& x) { return {x.device().type(), x.device().index()}; }
inline bool is_strided(const Tensor& x) { return x.layout() == torch::headeronly::kStrided; }
/// Sparse layouts go by one name.
inline const char* layout_name(const Tensor& x) { return is_strided(x) ? "Strided" : "Sparse"; }
inline int64_t fixed(Size size) { return size; }

}  // namespace lighthouse::ops

#define LIGHTHOUSE_CHECK_VALUE(condition, ...)                                \
  do {                                                                        \
    if (!(condition)) {                                                       \
      throw std::invalid_argument(::lighthouse::detail::concat(__VA_ARGS__)); \
    }                                                                         \
  } while (false)
#define LIGHTHOUSE_FAIL(...) throw std::runtime_error(::lighthouse::detail::concat(__VA_ARGS__))

#define LIGHTHOUSE_KERNELS(key, m) STABLE_TORCH_LIBRARY_IMPL(lighthouse, key, m)
#define LIGHTHOUSE_KERNEL(function) TORCH_BOX(&(function))
