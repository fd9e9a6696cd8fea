#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/tensor.h"

namespace lighthouse::ops {

Tensor empty(const Shape& shape, const Tensor& like, ScalarType dtype) {
  return at::empty_symint(shape, like.options().dtype(dtype));
}

Tensor zeros(int64_t elements, const Tensor& like) { return at::zeros({elements}, like.options().dtype(at::kInt)); }

Tensor on_cpu(const Tensor& x) { return x.cpu(); }

Tensor contiguous(const Tensor& x) { return x.contiguous(); }

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(0, count, grain, body);
}

}  // namespace lighthouse::ops
