#include "model/qkv_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/rms_norm.h"

namespace lighthouse {

QkvArguments qkv_arguments(const LayerWeights& weights, const LayerMatrices& compute, double eps, int64_t head_dim,
                           const Rotation& rotation) {
  return {compute.qkv_proj, rotation, eps, weights.q_proj.size(0) / head_dim, weights.k_proj.size(0) / head_dim,
          head_dim};
}

QkvProduct qkv_product(const at::Tensor& in, const std::optional<at::Tensor>& update, const at::Tensor& norm,
                       const std::optional<at::Tensor>& bias, const QkvArguments& arguments) {
  const auto [x, normed, inverse_rms] = add_rms_norm(in, update.value_or(at::Tensor()), norm, arguments.eps);
  const int64_t total_heads = arguments.num_heads + 2 * arguments.num_kv_heads;
  return {x, inverse_rms,
          project(normed, arguments.matrix, bias).view({x.size(0), x.size(1), total_heads, arguments.head_dim})};
}

std::optional<at::Tensor> qkv_bias(const LayerWeights& weights) {
  if (!weights.q_bias.defined()) return std::nullopt;
  return at::cat({weights.q_bias, weights.k_bias, weights.v_bias});
}

QkvGradients qkv_product_backward(const at::Tensor& packed, const at::Tensor& dx, const at::Tensor& x,
                                  const at::Tensor& inverse_rms, const at::Tensor& norm, const at::Tensor& matrix,
                                  int64_t q_channels) {
  const PartScope other(Part::kOther);
  at::Tensor dmatrix = matrix_gradient(packed, x);
  const at::Tensor dnormed = project_back(packed, matrix);
  const at::Tensor dnorm = split_norm_gradient_(dmatrix, matrix, norm);
  const at::Tensor din = rms_norm_backward_(dnormed, x, norm, inverse_rms, dx.contiguous());
  dmatrix = dmatrix.to(at::kFloat);
  const int64_t kv_channels = (matrix.size(0) - q_channels) / 2;
  return {din, dnorm.to(norm.scalar_type()), dmatrix.narrow(0, 0, q_channels),
          dmatrix.narrow(0, q_channels, kv_channels), dmatrix.narrow(0, q_channels + kv_channels, kv_channels)};
}

at::Tensor qkv_bias_gradient(const at::Tensor& packed, const at::Tensor& inverse_rms) {
  // Packed rows times their rms, which takes two numbers of the dtype of the rows not to be rounded to it.
  const at::Tensor rms = inverse_rms.reciprocal().unsqueeze(1);  // [B * N, 1]
  const at::Tensor high = rms.to(packed.scalar_type());
  const at::Tensor low = (rms - high).to(packed.scalar_type());
  return matrix_gradient(packed, at::cat({high, low}, 1)).sum(1);
}

}  // namespace lighthouse
