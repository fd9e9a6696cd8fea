#include "model/output_projection.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "model/products.h"
#include "ops/saved_gathering.h"
#include "parallel/context_attention.h"

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

struct ScatteredOutputFunction : torch::autograd::Function<ScatteredOutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& /*o_proj*/,
                            const ops::Gathering& gathering, const ComputeLayer& compute) {
    const at::Tensor o = ops::scatter_rows(rows, gathering);
    ops::save(context, {rows, compute.o_proj}, gathering);
    return project(o.flatten(2), compute.o_proj);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);
    const variable_list saved = context->get_saved_variables();
    const ops::Gathering gathering = ops::saved_gathering(context, saved);
    const at::Tensor o = ops::scatter_rows(saved[0], gathering);
    const auto [d_o, d_matrix] = project_output_back(gradients[0], o, saved[1]);
    enter_part(Part::kAttention);
    return {ops::scatter_rows_backward(d_o, gathering), d_matrix, at::Tensor(), at::Tensor()};
  }
};

/// o [B, N_r, H, D] of rows that lie on this rank, and those that the rank before has carried.
at::Tensor tokens_of(const at::Tensor& rows, const ops::Gathering& gathering, const at::Tensor& carried,
                     const ContextRow& row) {
  return row.selects() ? ops::scatter_rows(rows, gathering, carried) : rows;
}

struct SharedOutputFunction : torch::autograd::Function<SharedOutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& o, const at::Tensor& /*o_proj*/,
                            const ops::Gathering& gathering, const SharedRow& row, const ComputeLayer& compute) {
    const at::Tensor rows = to_rows({o}, exchange_of(*row, {row->heads.query}))[0];
    const at::Tensor carried = row->selects() ? carried_rows(rows, gathering, *row) : at::Tensor();
    ops::save(context, {rows, compute.o_proj, carried}, gathering);
    context->saved_data["row"] = c10::IValue::make_capsule(row);
    return project(tokens_of(rows, gathering, carried, *row).flatten(2), compute.o_proj);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& rows = saved[0];
    const ops::Gathering gathering = ops::saved_gathering(context, saved);
    const auto capsule = context->saved_data["row"].toCapsule();
    const auto& row = static_cast<const ContextRow&>(*capsule);
    const at::Tensor& grad = gradients[0];
    const at::Tensor d_o = project_back(grad, saved[1]).view({grad.size(0), grad.size(1), -1, rows.size(3)});
    const at::Tensor d_rows =
        row.selects() ? ops::scatter_rows_backward(d_o, gathering, gradients_behind(d_o, row)) : d_o;
    SentToHeads sent({d_rows}, exchange_of(row, {row.heads.query}));
    const at::Tensor o = tokens_of(rows, gathering, saved[2], row);
    const at::Tensor d_matrix = matrix_gradient(grad, o.flatten(2)).to(at::kFloat);
    return {sent.finish()[0], d_matrix, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor output_projection(const at::Tensor& o, const LayerWeights& weights, const ComputeLayer& compute) {
  return OutputFunction::apply(o, weights.o_proj, compute);
}

at::Tensor scattered_output_projection(const at::Tensor& rows, const ops::Gathering& gathering,
                                       const LayerWeights& weights, const ComputeLayer& compute) {
  return ScatteredOutputFunction::apply(rows, weights.o_proj, gathering, compute);
}

at::Tensor shared_output_projection(const at::Tensor& o, const ops::Gathering& gathering, const SharedRow& row,
                                    const LayerWeights& weights, const ComputeLayer& compute) {
  return SharedOutputFunction::apply(o, weights.o_proj, gathering, row, compute);
}

}  // namespace lighthouse
