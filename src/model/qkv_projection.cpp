#include "model/qkv_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/heads.h"
#include "nn/rms_norm.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Arguments {
  at::Tensor matrix;  ///< [(H + 2 H_kv) * D, dim] in the compute dtype
  Rotation rotation;  ///< undefined tensors: none
  double eps;
  int64_t num_heads, num_kv_heads, head_dim;
};

at::Tensor with_contiguous_channels(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

struct QkvFunction : torch::autograd::Function<QkvFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*q_proj*/, const at::Tensor& /*k_proj*/,
                               const at::Tensor& /*v_proj*/, const Arguments& arguments) {
    enter_part(Part::kOther);
    const auto& [matrix, rotation, eps, num_heads, num_kv_heads, head_dim] = arguments;
    const auto [x, normed, inverse_rms] = add_rms_norm(in, update.value_or(at::Tensor()), norm, eps);
    const int64_t total_heads = num_heads + 2 * num_kv_heads;
    const at::Tensor heads = project(normed, matrix).view({x.size(0), x.size(1), total_heads, head_dim});
    enter_part(Part::kOther);
    if (rotation.cos.defined()) rotate_heads_(heads, num_heads + num_kv_heads, rotation.cos, rotation.sin);
    context->saved_data["has_update"] = update.has_value();
    context->save_for_backward({x, inverse_rms, norm, matrix, rotation.cos, rotation.sin});
    return {x, heads.narrow(2, 0, num_heads), heads.narrow(2, num_heads, num_kv_heads),
            heads.narrow(2, num_heads + num_kv_heads, num_kv_heads)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kOther);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& inverse_rms = saved[1];
    const at::Tensor& norm = saved[2];
    const at::Tensor& matrix = saved[3];
    const at::Tensor& dx = gradients[0];
    const at::Tensor& dq = gradients[1];
    const at::Tensor& dk = gradients[2];
    const at::Tensor packed =
        pack_head_gradients(with_contiguous_channels(dq), with_contiguous_channels(dk),
                            with_contiguous_channels(gradients[3]), saved[4], saved[5], inverse_rms);
    at::Tensor dmatrix = matrix_gradient(packed, x);
    const at::Tensor dnormed = project_back(packed, matrix);
    enter_part(Part::kOther);
    const at::Tensor dnorm = split_norm_gradient_(dmatrix, matrix, norm);
    const at::Tensor din = rms_norm_backward_(dnormed, x, norm, inverse_rms, dx.contiguous());
    dmatrix = dmatrix.to(at::kFloat);
    const int64_t q_channels = dq.size(2) * dq.size(3);
    const int64_t kv_channels = dk.size(2) * dk.size(3);
    return {din,
            context->saved_data["has_update"].toBool() ? din : at::Tensor(),
            dnorm.to(norm.scalar_type()),
            dmatrix.narrow(0, 0, q_channels),
            dmatrix.narrow(0, q_channels, kv_channels),
            dmatrix.narrow(0, q_channels + kv_channels, kv_channels),
            at::Tensor()};
  }
};

}  // namespace

QkvProjection qkv_projection(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute, double eps,
                             int64_t head_dim, const Rotation* rotation) {
  const Arguments arguments{compute.qkv_proj,
                            rotation == nullptr ? Rotation() : *rotation,
                            eps,
                            weights.q_proj.size(0) / head_dim,
                            weights.k_proj.size(0) / head_dim,
                            head_dim};
  const variable_list outputs = QkvFunction::apply(in.x, in.update, weights.input_norm, weights.q_proj, weights.k_proj,
                                                   weights.v_proj, arguments);
  return {outputs[0], {outputs[1], outputs[2], outputs[3]}};
}

}  // namespace lighthouse
