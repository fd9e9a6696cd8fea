// Whether two tensors are the same, bit by bit, on whatever device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstring>

namespace lighthouse {

/// Equal shapes, dtypes and bits, NaN included.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().cpu().contiguous();
  const at::Tensor y = b.detach().cpu().contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         (x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0);
}

}  // namespace lighthouse
