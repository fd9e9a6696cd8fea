// What the functions of this layer demand of their arguments.
#pragma once

#include <ATen/core/Tensor.h>

#include "lighthouse/check.h"

namespace lighthouse::nn {

/// The type that sums run in: fp32, or fp64 for fp64.
inline at::ScalarType sum_dtype(const at::Tensor& x) { return c10::promoteTypes(x.scalar_type(), at::kFloat); }

/// A dtype that this layer computes on.
inline void check_activation(const char* function, const char* name, const at::Tensor& x) {
  const at::ScalarType dtype = x.scalar_type();
  LIGHTHOUSE_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16, function, ": ", name, " is ",
                   c10::toString(dtype), "; must be float32, float64 or bfloat16");
}

/// A tensor that is written, or read as rows of its last dimension.
inline void check_contiguous(const char* function, const char* name, const at::Tensor& x) {
  LIGHTHOUSE_CHECK(x.is_contiguous(), function, ": ", name, " of shape ", x.sizes(), " and strides ", x.strides(),
                   " must be contiguous");
}

/// As many elements as `like`, of its dtype and on its device.
inline void check_like(const char* function, const char* name, const at::Tensor& x, const at::Tensor& like) {
  LIGHTHOUSE_CHECK(x.numel() == like.numel() && x.scalar_type() == like.scalar_type() && x.device() == like.device(),
                   function, ": ", name, " is ", c10::toString(x.scalar_type()), " ", x.sizes(), " on ", x.device(),
                   "; must be ", c10::toString(like.scalar_type()), " of as many elements as ", like.sizes(), " on ",
                   like.device());
}

/// One number, of the sums' type, for each of `count` channels or rows.
inline void check_vector(const char* function, const char* name, const at::Tensor& x, int64_t count,
                         at::ScalarType dtype, const at::Tensor& like) {
  LIGHTHOUSE_CHECK(x.numel() == count && x.scalar_type() == dtype && x.device() == like.device(), function, ": ", name,
                   " is ", c10::toString(x.scalar_type()), " ", x.sizes(), " on ", x.device(), "; must be ", count,
                   " of ", c10::toString(dtype), " on ", like.device());
  check_contiguous(function, name, x);
}

/// The weight of a norm: fp32, or the sums' type.
inline void check_weight(const char* function, const char* name, const at::Tensor& x, int64_t count,
                         const at::Tensor& like) {
  check_vector(function, name, x, count, x.scalar_type() == at::kFloat ? at::kFloat : sum_dtype(like), like);
}

/// Rows of the last dimension.
inline int64_t num_rows(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

}  // namespace lighthouse::nn
