// What the two ways to query, key and value heads share (qkv_projection.h, selected_projection.h): the norm and the
// matrix product before them, and the gradients of both.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "model/compute_weights.h"
#include "model/rope.h"
#include "model/weights.h"

namespace lighthouse {

struct QkvArguments {
  at::Tensor matrix;  ///< [(H + 2 H_kv) * D, dim] in the compute dtype
  Rotation rotation;  ///< undefined tensors: none
  double eps;
  int64_t num_heads, num_kv_heads, head_dim;
};
QkvArguments qkv_arguments(const LayerWeights& weights, const ComputeLayer& compute, double eps, int64_t head_dim,
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

// The autograd functions of both begin with the inputs in, update, norm, q_proj, k_proj, v_proj, bias.

/// Keeps which of those that may be left out were given.
void save_given(torch::autograd::AutogradContext* context, const std::optional<at::Tensor>& update,
                const std::optional<at::Tensor>& bias);
/// The gradients of these inputs, and none of the `num_others` after them. `packed` as above.
torch::autograd::variable_list input_gradients(torch::autograd::AutogradContext* context, const QkvGradients& all,
                                               const at::Tensor& packed, const at::Tensor& inverse_rms,
                                               size_t num_others);

/// Gradients arrive with any strides; kernels need contiguous channels.
inline at::Tensor with_contiguous_channels(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

}  // namespace lighthouse
