#include "model/selected_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <utility>

#include "model/part_clock.h"
#include "model/qkv_product.h"
#include "nn/heads.h"
#include "ops/saved_gathering.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Turns the heads of the product, where gather does not.
ops::GatheredRows turned_rows(const QkvProduct& product, const QkvArguments& qkv, const calls::SharedPlan& plan) {
  const auto& [cos, sin] = qkv.rotation;
  const at::Tensor q = product.q(qkv);
  const at::Tensor k = product.k(qkv);
  const at::Tensor v = product.v(qkv);
  if (!cos.defined()) return ops::gather_by_norm(q, k, v, plan);
  auto rows = ops::gather_turned_by_norm(q, k, v, {cos, sin}, plan);
  if (rows) return *std::move(rows);
  rotate_heads_(product.heads, qkv.num_heads + qkv.num_kv_heads, cos, sin);
  return ops::gather_by_norm(q, k, v, plan);
}

/// pack_head_gradients of gather's adjoint.
at::Tensor packed_gradient(const Rows& rows, const ops::Gathering& gathering, const ops::Angles& angles,
                           const at::Tensor& inverse_rms) {
  if (angles.cos.defined()) {
    const auto packed = ops::gather_rows_backward_turned(rows, gathering, angles, inverse_rms);
    if (packed) return packed->flatten(2).flatten(0, 1);
  }
  const auto [dq, dk, dv] = ops::gather_rows_backward(rows, gathering);
  return pack_head_gradients(dq, dk, dv, angles.cos, angles.sin, inverse_rms);
}

/// The gathering leaves by `made`, not as a result: nothing would make zero gradients for index arrays in backward.
struct SelectedFunction : torch::autograd::Function<SelectedFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*q_proj*/, const at::Tensor& /*k_proj*/,
                               const at::Tensor& /*v_proj*/, const std::optional<at::Tensor>& bias,
                               const QkvArguments& qkv, const calls::SharedPlan& plan, ops::Gathering* made) {
    const QkvProduct product = qkv_product(in, update, norm, bias, qkv);
    enter_part(Part::kAttention);
    ops::GatheredRows rows = turned_rows(product, qkv, plan);
    ops::save(context, {product.x, product.inverse_rms, norm, qkv.matrix, qkv.rotation.cos, qkv.rotation.sin},
              rows.gathering);
    save_given(context, update, bias);
    *made = std::move(rows.gathering);
    return {product.x, std::move(rows.q), std::move(rows.k), std::move(rows.v)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& inverse_rms = saved[1];
    const Rows rows{with_contiguous_channels(gradients[1]), with_contiguous_channels(gradients[2]),
                    with_contiguous_channels(gradients[3])};
    const at::Tensor packed =
        packed_gradient(rows, ops::saved_gathering(context, saved), {saved[4], saved[5]}, inverse_rms);
    const QkvGradients all =
        qkv_product_backward(packed, gradients[0], x, inverse_rms, saved[2], saved[3], rows.q.size(1) * rows.q.size(3));
    return input_gradients(context, all, packed, inverse_rms, /*num_others=*/3);
  }
};

}  // namespace

SelectedProjection selected_projection(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute,
                                       double eps, int64_t head_dim, const Rotation& rotation,
                                       const calls::SharedPlan& plan) {
  ops::Gathering gathering;
  const variable_list outputs = SelectedFunction::apply(
      in.x, in.update, weights.input_norm, weights.q_proj, weights.k_proj, weights.v_proj, qkv_bias(weights),
      qkv_arguments(weights, compute, eps, head_dim, rotation), plan, &gathering);
  return {outputs[0], {{outputs[1], outputs[2], outputs[3]}, std::move(gathering)}};
}

}  // namespace lighthouse
