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

/// What output_projection keeps, before a gathering.
struct KeptByOutput {
  at::Tensor o, matrix;  ///< rows [B, H, S, D]; without a gathering [B, N, H * D]
  explicit KeptByOutput(const variable_list& saved) : o(saved[0]), matrix(saved[1]) {}
};

struct OutputFunction : torch::autograd::Function<OutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& o, const at::Tensor& /*o_proj*/,
                            const std::optional<ops::Gathering>& gathering, const LayerMatrices& compute) {
    const at::Tensor flat = (gathering ? ops::scatter_rows(o, *gathering) : o).flatten(2);
    if (gathering) {
      ops::save(context, {o, compute.o_proj}, *gathering);
    } else {
      context->save_for_backward({flat, compute.o_proj});
    }
    context->saved_data["is_gathered"] = gathering.has_value();
    context->saved_data["num_heads"] = o.size(gathering ? 1 : 2);
    return project(flat, compute.o_proj);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kAttention);  // whose backward comes next
    const variable_list saved = context->get_saved_variables();
    const KeptByOutput kept(saved);
    std::optional<ops::Gathering> gathering;
    if (context->saved_data["is_gathered"].toBool()) gathering = ops::saved_gathering(context, saved);
    const at::Tensor flat = gathering ? ops::scatter_rows(kept.o, *gathering).flatten(2) : kept.o;
    const at::Tensor d_matrix = matrix_gradient(gradients[0], flat).to(at::kFloat);
    const at::Tensor d_flat = project_back(gradients[0], kept.matrix);
    const at::Tensor d_o = d_flat.view({d_flat.size(0), d_flat.size(1), context->saved_data["num_heads"].toInt(), -1});
    return {gathering ? ops::scatter_rows_backward(d_o, *gathering) : d_o, d_matrix, at::Tensor(), at::Tensor()};
  }
};

/// o [B, N_r, H, D] of rows that lie on this rank, and those that the rank before has carried.
at::Tensor tokens_of(const at::Tensor& rows, const ops::Gathering& gathering, const at::Tensor& carried,
                     const ContextRow& row) {
  return row.selects() ? ops::scatter_rows(rows, gathering, carried) : rows;
}

struct SharedOutputFunction : torch::autograd::Function<SharedOutputFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& o, const at::Tensor& /*o_proj*/,
                            const ops::Gathering& gathering, const SharedRow& row, const LayerMatrices& compute) {
    const at::Tensor rows = to_rows({o}, exchange_of(*row, {row->attended.query}))[0];
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
    SentToHeads sent({d_rows}, exchange_of(row, {row.attended.query}));
    const at::Tensor o = tokens_of(rows, gathering, saved[2], row);
    const at::Tensor d_matrix = matrix_gradient(grad, o.flatten(2)).to(at::kFloat);
    return {sent.finish()[0], d_matrix, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor output_projection(const at::Tensor& o, const std::optional<ops::Gathering>& gathering,
                             const LayerWeights& weights, const LayerMatrices& compute) {
  return OutputFunction::apply(o, weights.o_proj, gathering, compute);
}

at::Tensor shared_output_projection(const at::Tensor& o, const ops::Gathering& gathering, const SharedRow& row,
                                    const LayerWeights& weights, const LayerMatrices& compute) {
  return SharedOutputFunction::apply(o, weights.o_proj, gathering, row, compute);
}

}  // namespace lighthouse
