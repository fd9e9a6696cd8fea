#include "model/selected_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "model/part_clock.h"
#include "model/qkv_product.h"
#include "nn/heads.h"
#include "ops/turned_gather.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What gather and its adjoint are told, besides tensors.
struct GatherArguments {
  std::vector<int64_t> layout;
  bool cover_prefix;
  std::vector<int64_t> cu_seqlens;
};

/// Turns the heads of the product, where gather does not.
ops::SelectedRows turned_rows(const QkvProduct& product, const QkvArguments& qkv, const GatherArguments& gather) {
  const auto& [cos, sin] = qkv.rotation;
  const at::Tensor q = product.q(qkv);
  const at::Tensor k = product.k(qkv);
  const at::Tensor v = product.v(qkv);
  auto rows = ops::gather_turned_by_norm(q, k, v, {cos, sin}, gather.layout, gather.cover_prefix,
                                         ops::optional_offsets(gather.cu_seqlens));
  if (rows) return *std::move(rows);
  rotate_heads_(product.heads, qkv.num_heads + qkv.num_kv_heads, cos, sin);
  return ops::gather_by_norm(q, k, v, gather.layout, gather.cover_prefix, ops::optional_offsets(gather.cu_seqlens));
}

/// pack_head_gradients of gather's adjoint.
at::Tensor packed_gradient(const variable_list& rows, const ops::IndexMaps& maps, int64_t seq_len,
                           const ops::Angles& angles, const at::Tensor& inverse_rms, const GatherArguments& gather) {
  const auto packed = ops::gather_rows_backward_turned(rows[0], rows[1], rows[2], maps, seq_len, angles, inverse_rms,
                                                       gather.layout, ops::optional_offsets(gather.cu_seqlens));
  if (packed) return packed->flatten(2).flatten(0, 1);
  const auto [dq, dk, dv] = ops::gather_rows_backward(rows[0], rows[1], rows[2], maps.selection, maps.slots, seq_len,
                                                      gather.layout, ops::optional_offsets(gather.cu_seqlens));
  return pack_head_gradients(dq, dk, dv, angles.cos, angles.sin, inverse_rms);
}

/// The index arrays leave by `maps`, not as results: nothing would make zero gradients for them in backward.
struct SelectedFunction : torch::autograd::Function<SelectedFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*q_proj*/, const at::Tensor& /*k_proj*/,
                               const at::Tensor& /*v_proj*/, const QkvArguments& qkv, const GatherArguments& gather,
                               ops::IndexMaps* maps) {
    const QkvProduct product = qkv_product(in, update, norm, qkv);
    enter_part(Part::kAttention);
    auto [q_rows, k_rows, v_rows, selection, slots] = turned_rows(product, qkv, gather);
    context->save_for_backward(
        {product.x, product.inverse_rms, norm, qkv.matrix, qkv.rotation.cos, qkv.rotation.sin, selection, slots});
    context->saved_data["has_update"] = update.has_value();
    context->saved_data["layout"] = gather.layout;
    context->saved_data["cu_seqlens"] = gather.cu_seqlens;
    *maps = {std::move(selection), std::move(slots)};
    return {product.x, std::move(q_rows), std::move(k_rows), std::move(v_rows)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& inverse_rms = saved[1];
    const GatherArguments gather{context->saved_data["layout"].toIntVector(), false,
                                 context->saved_data["cu_seqlens"].toIntVector()};
    variable_list rows;
    for (size_t i = 1; i <= 3; ++i) rows.push_back(with_contiguous_channels(gradients[i]));
    const at::Tensor packed =
        packed_gradient(rows, {saved[6], saved[7]}, x.size(1), {saved[4], saved[5]}, inverse_rms, gather);
    const QkvGradients all = qkv_product_backward(packed, gradients[0], x, inverse_rms, saved[2], saved[3],
                                                  rows[0].size(1) * rows[0].size(3));
    const bool has_update = context->saved_data["has_update"].toBool();
    return {all.in,       has_update ? all.in : at::Tensor(),
            all.norm,     all.q_proj,
            all.k_proj,   all.v_proj,
            at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

SelectedProjection selected_projection(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute,
                                       double eps, int64_t head_dim, const Rotation& rotation,
                                       const SelectionConfig& selection, const std::vector<int64_t>& cu_seqlens) {
  const std::array<int64_t, 4> layout = ops::layout_of(selection);
  ops::IndexMaps maps;
  const variable_list outputs = SelectedFunction::apply(
      in.x, in.update, weights.input_norm, weights.q_proj, weights.k_proj, weights.v_proj,
      qkv_arguments(weights, compute, eps, head_dim, rotation),
      GatherArguments{{layout.begin(), layout.end()}, selection.cover_prefix, cu_seqlens}, &maps);
  return {outputs[0], {outputs[1], outputs[2], outputs[3], maps.selection, maps.slots}};
}

}  // namespace lighthouse
