#include "model/products.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "model/part_clock.h"

namespace lighthouse {
namespace {

std::vector<int64_t> with_channels(const at::Tensor& x, int64_t channels) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = channels;
  return sizes;
}

/// Whether the product can be written in fp32 at once.
bool keeps_sums(const at::Tensor& x) { return x.is_cuda() && x.scalar_type() == at::kBFloat16; }

}  // namespace

at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

at::Tensor project(const at::Tensor& x, const at::Tensor& matrix, const std::optional<at::Tensor>& bias) {
  const PartScope matmul(Part::kMatmul);
  const at::Tensor product =
      bias ? at::addmm(bias->to(matrix.scalar_type()), as_rows(x), matrix.t()) : at::mm(as_rows(x), matrix.t());
  return product.view(with_channels(x, matrix.size(0)));
}

at::Tensor project_back(const at::Tensor& grad, const at::Tensor& matrix) {
  const PartScope matmul(Part::kMatmul);
  return at::mm(as_rows(grad), matrix).view(with_channels(grad, matrix.size(1)));
}

void project_to(at::Tensor& out, const at::Tensor& x, const at::Tensor& matrix) {
  const PartScope matmul(Part::kMatmul);
  at::mm_out(out, x, matrix.t());
}

void project_back_to(at::Tensor& out, const at::Tensor& grad, const at::Tensor& matrix) {
  const PartScope matmul(Part::kMatmul);
  at::mm_out(out, grad, matrix);
}

at::Tensor matrix_gradient(const at::Tensor& grad, const at::Tensor& x) {
  const PartScope matmul(Part::kMatmul);
  const at::Tensor grad_channels = as_rows(grad).t();
  if (keeps_sums(x)) return at::mm(grad_channels, as_rows(x), at::kFloat);
  return at::mm(grad_channels, as_rows(x)).to(c10::promoteTypes(x.scalar_type(), at::kFloat));
}

void add_matrix_gradient(at::Tensor& sum, const at::Tensor& grad, const at::Tensor& x) {
  if (!keeps_sums(x)) {
    sum.add_(matrix_gradient(grad, x));
    return;
  }
  const PartScope matmul(Part::kMatmul);
  at::addmm_out(sum, sum, as_rows(grad).t(), as_rows(x), at::kFloat);
}

}  // namespace lighthouse
