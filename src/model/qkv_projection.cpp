#include "model/qkv_projection.h"

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

/// What is kept for backward, before a gathering.
struct KeptByQkv {
  at::Tensor x, inverse_rms, norm, matrix;
  Rotation rotation;

  explicit KeptByQkv(const variable_list& saved)
      : x(saved[0]), inverse_rms(saved[1]), norm(saved[2]), matrix(saved[3]), rotation{saved[4], saved[5]} {}
  KeptByQkv(const QkvProduct& product, at::Tensor of_norm, const QkvArguments& qkv)
      : x(product.x),
        inverse_rms(product.inverse_rms),
        norm(std::move(of_norm)),
        matrix(qkv.matrix),
        rotation(qkv.rotation) {}
  variable_list list() const { return {x, inverse_rms, norm, matrix, rotation.cos, rotation.sin}; }
};

void rotate_product(const QkvProduct& product, const QkvArguments& qkv) {
  if (qkv.rotation.defined()) rotate_heads_(product.heads, qkv.num_heads + qkv.num_kv_heads, qkv.rotation);
}

/// Turns the heads of the product, where gather does not.
ops::GatheredRows turned_rows(const QkvProduct& product, const QkvArguments& qkv, const calls::SharedPlan& plan) {
  const at::Tensor q = product.q(qkv);
  const at::Tensor k = product.k(qkv);
  const at::Tensor v = product.v(qkv);
  if (qkv.rotation.defined()) {
    auto rows = ops::gather_turned_by_norm(q, k, v, qkv.rotation, plan);
    if (rows) return *std::move(rows);
  }
  rotate_product(product, qkv);
  return ops::gather_by_norm(q, k, v, plan);
}

/// pack_head_gradients of gather's adjoint.
at::Tensor packed_gradient(const Rows& rows, const ops::Gathering& gathering, const Rotation& rotation,
                           const at::Tensor& inverse_rms) {
  if (rotation.defined()) {
    const auto packed = ops::gather_rows_backward_turned(rows, gathering, rotation, inverse_rms);
    if (packed) return packed->flatten(2).flatten(0, 1);
  }
  const auto [dq, dk, dv] = ops::gather_rows_backward(rows, gathering);
  return pack_head_gradients(dq, dk, dv, rotation, inverse_rms);
}

/// The gathering, of a plan that is not null, leaves by `made` and not as a result: nothing would make zero gradients
/// for index arrays in backward.
struct QkvFunction : torch::autograd::Function<QkvFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*q_proj*/, const at::Tensor& /*k_proj*/,
                               const at::Tensor& /*v_proj*/, const std::optional<at::Tensor>& bias,
                               const QkvArguments& qkv, const calls::SharedPlan& plan, ops::Gathering* made) {
    const PartScope other(Part::kOther);
    const QkvProduct product = qkv_product(in, update, norm, bias, qkv);
    context->saved_data["has_update"] = update.has_value();
    context->saved_data["has_bias"] = bias.has_value();
    context->saved_data["is_gathered"] = plan != nullptr;
    const KeptByQkv kept(product, norm, qkv);
    if (plan == nullptr) {
      rotate_product(product, qkv);
      context->save_for_backward(kept.list());
      return {product.x, product.q(qkv), product.k(qkv), product.v(qkv)};
    }
    const PartScope attention(Part::kAttention);
    ops::GatheredRows rows = turned_rows(product, qkv, plan);
    ops::save(context, kept.list(), rows.gathering);
    *made = std::move(rows.gathering);
    return {product.x, std::move(rows.q), std::move(rows.k), std::move(rows.v)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const bool is_gathered = context->saved_data["is_gathered"].toBool();
    const PartScope part(is_gathered ? Part::kAttention : Part::kOther);
    const variable_list saved = context->get_saved_variables();
    const KeptByQkv kept(saved);
    const Rows given{with_contiguous_channels(gradients[1]), with_contiguous_channels(gradients[2]),
                     with_contiguous_channels(gradients[3])};
    const at::Tensor packed =
        is_gathered ? packed_gradient(given, ops::saved_gathering(context, saved), kept.rotation, kept.inverse_rms)
                    : pack_head_gradients(given.q, given.k, given.v, kept.rotation, kept.inverse_rms);
    const int64_t num_heads = given.q.size(is_gathered ? 1 : 2);
    const QkvGradients all = qkv_product_backward(packed, gradients[0], kept.x, kept.inverse_rms, kept.norm,
                                                  kept.matrix, num_heads * given.q.size(3));
    const bool has_bias = context->saved_data["has_bias"].toBool();
    return {all.in,
            context->saved_data["has_update"].toBool() ? all.in : at::Tensor(),
            all.norm,
            all.q_proj,
            all.k_proj,
            all.v_proj,
            has_bias ? qkv_bias_gradient(packed, kept.inverse_rms) : at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

variable_list project_qkv(const Residual& in, const LayerWeights& weights, const QkvArguments& arguments,
                          const calls::SharedPlan& plan, ops::Gathering* made) {
  return QkvFunction::apply(in.x, in.update, weights.input_norm, weights.q_proj, weights.k_proj, weights.v_proj,
                            qkv_bias(weights), arguments, plan, made);
}

}  // namespace

QkvProjection qkv_projection(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute, double eps,
                             int64_t head_dim, const Rotation& rotation) {
  const variable_list outputs =
      project_qkv(in, weights, qkv_arguments(weights, compute, eps, head_dim, rotation), nullptr, nullptr);
  return {outputs[0], {outputs[1], outputs[2], outputs[3]}};
}

SelectedProjection selected_projection(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute,
                                       double eps, int64_t head_dim, const Rotation& rotation,
                                       const calls::SharedPlan& plan) {
  ops::Gathering gathering;
  const variable_list outputs =
      project_qkv(in, weights, qkv_arguments(weights, compute, eps, head_dim, rotation), plan, &gathering);
  return {outputs[0], {{outputs[1], outputs[2], outputs[3]}, std::move(gathering)}};
}

}  // namespace lighthouse
