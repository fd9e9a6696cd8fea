#include "model/qkv_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "model/qkv_product.h"
#include "nn/heads.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct QkvFunction : torch::autograd::Function<QkvFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*q_proj*/, const at::Tensor& /*k_proj*/,
                               const at::Tensor& /*v_proj*/, const std::optional<at::Tensor>& bias,
                               const QkvArguments& arguments) {
    const QkvProduct product = qkv_product(in, update, norm, bias, arguments);
    enter_part(Part::kOther);
    const auto& [cos, sin] = arguments.rotation;
    if (cos.defined()) rotate_heads_(product.heads, arguments.num_heads + arguments.num_kv_heads, cos, sin);
    save_given(context, update, bias);
    context->save_for_backward({product.x, product.inverse_rms, norm, arguments.matrix, cos, sin});
    return {product.x, product.q(arguments), product.k(arguments), product.v(arguments)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kOther);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& inverse_rms = saved[1];
    const at::Tensor& dq = gradients[1];
    const at::Tensor packed =
        pack_head_gradients(with_contiguous_channels(dq), with_contiguous_channels(gradients[2]),
                            with_contiguous_channels(gradients[3]), saved[4], saved[5], inverse_rms);
    const QkvGradients all =
        qkv_product_backward(packed, gradients[0], saved[0], inverse_rms, saved[2], saved[3], dq.size(2) * dq.size(3));
    return input_gradients(context, all, packed, inverse_rms, /*num_others=*/1);
  }
};

}  // namespace

QkvProjection qkv_projection(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute, double eps,
                             int64_t head_dim, const Rotation& rotation) {
  const variable_list outputs =
      QkvFunction::apply(in.x, in.update, weights.input_norm, weights.q_proj, weights.k_proj, weights.v_proj,
                         qkv_bias(weights), qkv_arguments(weights, compute, eps, head_dim, rotation));
  return {outputs[0], {outputs[1], outputs[2], outputs[3]}};
}

}  // namespace lighthouse
