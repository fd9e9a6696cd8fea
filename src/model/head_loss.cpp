#include "model/head_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/cross_entropy.h"
#include "nn/rms_norm.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Arguments {
  at::Tensor head;     ///< [vocab, dim] in the compute dtype
  at::Tensor targets;  ///< [rows]
  double eps;
  int64_t rows_per_chunk;
  bool needs_gradients;
};

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                            const at::Tensor& norm, const at::Tensor& /*head*/, const Arguments& arguments) {
    enter_part(Part::kOther);
    const auto& [head, targets, eps, rows_per_chunk, needs_gradients] = arguments;
    const auto [x, normed, inverse_rms] = add_rms_norm(in, update.value_or(at::Tensor()), norm, eps);
    const at::Tensor x_rows = x.flatten(0, -2);
    const at::Tensor normed_rows = normed.flatten(0, -2);
    const at::Tensor count = targets.ne(kNoTarget).sum().clamp_min(1);
    // Gradients of the logits are taken times 1 / rms, as rms_norm_backward_ and split_norm_gradient_ want them.
    const at::Tensor scale = inverse_rms / count;
    const int64_t num_rows = x_rows.size(0);

    at::Tensor losses = at::empty({num_rows}, inverse_rms.options());
    at::Tensor dnormed, dhead;
    if (needs_gradients) {
      dnormed = at::empty_like(x_rows);
      dhead = at::zeros(head.sizes(), inverse_rms.options());
    }
    for (int64_t row = 0; row < num_rows; row += rows_per_chunk) {
      const auto chunk = [&](const at::Tensor& rows) {
        return rows.narrow(0, row, std::min(rows_per_chunk, num_rows - row));
      };
      const at::Tensor logits = project(chunk(normed_rows), head);
      enter_part(Part::kOther);
      if (!needs_gradients) {
        chunk(losses).copy_(cross_entropy(logits, chunk(targets)));
        continue;
      }
      chunk(losses).copy_(cross_entropy_(logits, chunk(targets), chunk(scale)));
      chunk(dnormed).copy_(project_back(logits, head));
      add_matrix_gradient(dhead, logits, chunk(x_rows));
      enter_part(Part::kOther);
    }
    if (needs_gradients) {
      const at::Tensor dnorm = split_norm_gradient_(dhead, head, norm);
      const at::Tensor dx = rms_norm_backward_(dnormed, x, norm, inverse_rms, {});
      context->save_for_backward({dx, dnorm.to(norm.scalar_type()), dhead.to(norm.scalar_type())});
    }
    context->saved_data["has_update"] = update.has_value();
    const at::Tensor sum = losses.sum(at::kDouble) / count;
    return sum.to(losses.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kOther);
    variable_list saved = context->get_saved_variables();
    for (at::Tensor& gradient : saved) gradient.mul_(gradients[0]);
    const bool has_update = context->saved_data["has_update"].toBool();
    return {saved[0], has_update ? saved[0] : at::Tensor(), saved[1], saved[2], at::Tensor()};
  }
};

}  // namespace

at::Tensor head_loss(const Residual& in, const at::Tensor& norm, double eps, const at::Tensor& head,
                     const at::Tensor& compute_head, const at::Tensor& targets, int64_t logit_bytes) {
  const int64_t row_bytes = compute_head.size(0) * compute_head.element_size();
  const bool needs_gradients = at::GradMode::is_enabled() && (in.x.requires_grad() || head.requires_grad());
  return HeadLossFunction::apply(
      in.x, in.update, norm, head,
      Arguments{compute_head, targets.flatten(), eps, std::max<int64_t>(logit_bytes / row_bytes, 1), needs_gradients});
}

}  // namespace lighthouse
