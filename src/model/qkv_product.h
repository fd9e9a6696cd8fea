// What query, key and value heads begin with (qkv_projection.h): the norm and the matrix product, and the gradients of
// both.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "model/rope.h"
#include "model/weights.h"

namespace lighthouse {

struct QkvArguments {
  at::Tensor matrix;  ///< [(H + 2 H_kv) * D, dim] in the compute dtype
  Rotation rotation;  ///< undefined tensors: none
  double eps;
  int64_t num_heads, num_kv_heads, head_dim;
};
QkvArguments qkv_arguments(const LayerWeights& weights, const LayerMatrices& compute, double eps, int64_t head_dim,
                           const Rotation& rotation);

struct QkvProduct {
  at::Tensor x;            ///< [B, N, dim], in + update
  at::Tensor inverse_rms;  ///< [B * N]
  at::Tensor heads;        ///< [B, N, H + 2 H_kv, D], not turned

  at::Tensor q(const QkvArguments& of) const { return heads.narrow(2, 0, of.num_heads); }
  at::Tensor k(const QkvArguments& of) const { return heads.narrow(2, of.num_heads, of.num_kv_heads); }
  at::Tensor v(const QkvArguments& of) const {
    return heads.narrow(2, of.num_heads + of.num_kv_heads, of.num_kv_heads);
  }
};
/// `bias` as qkv_bias makes it.
QkvProduct qkv_product(const at::Tensor& in, const std::optional<at::Tensor>& update, const at::Tensor& norm,
                       const std::optional<at::Tensor>& bias, const QkvArguments& arguments);

/// [(H + 2 H_kv) * D] fp32, q_bias, k_bias and v_bias behind one another; none without them.
std::optional<at::Tensor> qkv_bias(const LayerWeights& weights);

struct QkvGradients {
  at::Tensor in;  ///< and that of update
  at::Tensor norm, q_proj, k_proj, v_proj;
};
/// `packed` [B * N, (H + 2 H_kv) * D]: the gradient of heads times inverse_rms (pack_head_gradients); dx that of x.
QkvGradients qkv_product_backward(const at::Tensor& packed, const at::Tensor& dx, const at::Tensor& x,
                                  const at::Tensor& inverse_rms, const at::Tensor& norm, const at::Tensor& matrix,
                                  int64_t q_channels);

/// Of qkv_bias: the gradient of heads summed over tokens. `packed` as above.
at::Tensor qkv_bias_gradient(const at::Tensor& packed, const at::Tensor& inverse_rms);

/// Gradients arrive with any strides; kernels need contiguous channels.
inline at::Tensor with_contiguous_channels(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

}  // namespace lighthouse
