#include "model/output_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "model/part_clock.h"
#include "model/products.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The gradients of o [B, N, H, D] and of the matrix, given that of the projection.
struct Gradients {
  at::Tensor o, matrix;
};
Gradients project_output_back(const at::Tensor& grad, const at::Tensor& o, const at::Tensor& matrix) {
  Gradients gradients;
  gradients.matrix = matrix_gradient(grad, o.flatten(2)).to(at::kFloat);
  gradients.o = project_back(grad, matrix).view(o.sizes());
  return gradients;
}

struct OutputFunction : torch::autograd::Function<OutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& o, const at::Tensor& /*o_proj*/,
                            const ComputeLayer& compute) {
    const at::Tensor flat = o.flatten(2);
    context->save_for_backward({flat, compute.o_proj});
    context->saved_data["sizes"] = o.sizes().vec();
    return project(flat, compute.o_proj);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor o = saved[0].view(context->saved_data["sizes"].toIntVector());
    const auto [d_o, d_matrix] = project_output_back(gradients[0], o, saved[1]);
    enter_part(Part::kAttention);  // whose backward comes next
    return {d_o, d_matrix, at::Tensor()};
  }
};

/// What scatter_rows and its adjoint are told, besides tensors.
struct ScatterMap {
  int64_t seq_len;
  std::vector<int64_t> layout;
  std::vector<int64_t> cu_seqlens;
};

struct ScatteredOutputFunction : torch::autograd::Function<ScatteredOutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& /*o_proj*/,
                            const ops::IndexMaps& maps, const ScatterMap& map, const ComputeLayer& compute) {
    const at::Tensor o = ops::scatter_rows(rows, maps.selection, maps.slots, map.seq_len, map.layout,
                                           ops::optional_offsets(map.cu_seqlens));
    context->save_for_backward({rows, maps.selection, maps.slots, compute.o_proj});
    context->saved_data["seq_len"] = map.seq_len;
    context->saved_data["layout"] = map.layout;
    context->saved_data["cu_seqlens"] = map.cu_seqlens;
    return project(o.flatten(2), compute.o_proj);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);
    const variable_list saved = context->get_saved_variables();
    const ScatterMap map{context->saved_data["seq_len"].toInt(), context->saved_data["layout"].toIntVector(),
                         context->saved_data["cu_seqlens"].toIntVector()};
    const at::Tensor o =
        ops::scatter_rows(saved[0], saved[1], saved[2], map.seq_len, map.layout, ops::optional_offsets(map.cu_seqlens));
    const auto [d_o, d_matrix] = project_output_back(gradients[0], o, saved[3]);
    enter_part(Part::kAttention);
    const at::Tensor d_rows =
        ops::scatter_rows_backward(d_o, saved[1], saved[2], map.layout, ops::optional_offsets(map.cu_seqlens));
    return {d_rows, d_matrix, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor output_projection(const at::Tensor& o, const LayerWeights& weights, const ComputeLayer& compute) {
  return OutputFunction::apply(o, weights.o_proj, compute);
}

at::Tensor scattered_output_projection(const ops::AttendedRows& rows, const SelectionConfig& selection,
                                       const std::vector<int64_t>& cu_seqlens, const LayerWeights& weights,
                                       const ComputeLayer& compute) {
  const std::array<int64_t, 4> layout = ops::layout_of(selection);
  return ScatteredOutputFunction::apply(rows.o_rows, weights.o_proj, rows.maps,
                                        ScatterMap{rows.seq_len, {layout.begin(), layout.end()}, cu_seqlens}, compute);
}

}  // namespace lighthouse
