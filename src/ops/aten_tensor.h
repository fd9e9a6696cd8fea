// ops/tensor.h against ATen: sizes may be symbols of a traced graph.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <cstdint>

namespace lighthouse::ops {

using at::ScalarType;
using at::Tensor;
using Size = c10::SymInt;
using SizesView = c10::SymIntArrayRef;
using Integers = at::IntArrayRef;
using OptionalIntegers = at::OptionalIntArrayRef;

inline Size size(const Tensor& x, int64_t dimension) { return x.sym_size(dimension); }
inline Size stride(const Tensor& x, int64_t dimension) { return x.sym_stride(dimension); }
inline SizesView sizes(const Tensor& x) { return x.sym_sizes(); }
inline SizesView strides(const Tensor& x) { return x.sym_strides(); }
inline auto device(const Tensor& x) { return x.device(); }
inline auto layout_name(const Tensor& x) { return x.layout(); }
inline bool is_strided(const Tensor& x) { return x.layout() == at::kStrided; }
/// In a traced graph it becomes a constant.
inline int64_t fixed(const Size& size) { return size.guard_int(__FILE__, __LINE__); }

}  // namespace lighthouse::ops

/// Throws what Python shows as a ValueError unless `condition` holds, or as a RuntimeError.
#define LIGHTHOUSE_CHECK_VALUE(condition, ...) TORCH_CHECK_VALUE(condition, __VA_ARGS__)
#define LIGHTHOUSE_FAIL(...) TORCH_CHECK(false, __VA_ARGS__)

/// LIGHTHOUSE_KERNELS(CPU, m) { m.impl("_name", LIGHTHOUSE_KERNEL(function)); }
#define LIGHTHOUSE_KERNELS(key, m) TORCH_LIBRARY_IMPL(lighthouse, key, m)
#define LIGHTHOUSE_KERNEL(function) (&(function))
