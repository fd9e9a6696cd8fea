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

struct LossArguments {
  at::Tensor head;     ///< [vocab, dim] in the compute dtype
  at::Tensor targets;  ///< [rows]
  double eps;
  int64_t rows_per_chunk;
  bool needs_gradients;
};

/// What the logits' gradients become, chunk by chunk.
struct HeadGradients {
  at::Tensor x;        ///< [rows, dim], what was normed
  at::Tensor scale;    ///< [rows], of each row's gradient
  at::Tensor dnormed;  ///< [rows, dim]; written
  at::Tensor dhead;    ///< [vocab, dim]; added to
};

int64_t rows_per_chunk(const at::Tensor& head, int64_t logit_bytes) {
  return std::max<int64_t>(logit_bytes / (head.size(0) * head.element_size()), 1);
}

/// Cross entropy [rows], fp32 or fp64, of head(normed) and, where `gradients` is not null, its gradients.
at::Tensor row_losses(const at::Tensor& normed, const LossArguments& arguments, HeadGradients* gradients) {
  const at::Tensor normed_rows = normed.flatten(0, -2);
  const int64_t num_rows = normed_rows.size(0);
  at::Tensor losses =
      at::empty({num_rows}, normed.options().dtype(c10::promoteTypes(normed.scalar_type(), at::kFloat)));
  for (int64_t row = 0; row < num_rows; row += arguments.rows_per_chunk) {
    const auto chunk = [&](const at::Tensor& rows) {
      return rows.narrow(0, row, std::min(arguments.rows_per_chunk, num_rows - row));
    };
    const at::Tensor logits = project(chunk(normed_rows), arguments.head);
    if (gradients == nullptr) {
      chunk(losses).copy_(cross_entropy(logits, chunk(arguments.targets)));
      continue;
    }
    chunk(losses).copy_(cross_entropy_(logits, chunk(arguments.targets), chunk(gradients->scale)));
    chunk(gradients->dnormed).copy_(project_back(logits, arguments.head));
    add_matrix_gradient(gradients->dhead, logits, chunk(gradients->x));
  }
  return losses;
}

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& in, const std::optional<at::Tensor>& update,
                            const at::Tensor& norm, const at::Tensor& /*head*/, const LossArguments& arguments) {
    enter_part(Part::kOther);
    const Normed normed = add_rms_norm(in, update.value_or(at::Tensor()), norm, arguments.eps);
    const at::Tensor count = arguments.targets.ne(kNoTarget).sum().clamp_min(1);
    at::Tensor losses;
    if (arguments.needs_gradients) {
      // Gradients of the logits are taken times 1 / rms, as rms_norm_backward_ and split_norm_gradient_ want them.
      const at::Tensor& inverse_rms = normed.inverse_rms;
      const at::Tensor x = normed.sum.flatten(0, -2);
      HeadGradients gradients{x, inverse_rms / count, at::empty_like(x),
                              at::zeros(arguments.head.sizes(), inverse_rms.options())};
      losses = row_losses(normed.normed, arguments, &gradients);
      const at::Tensor dnorm = split_norm_gradient_(gradients.dhead, arguments.head, norm);
      const at::Tensor dx = rms_norm_backward_(gradients.dnormed, normed.sum, norm, inverse_rms, {});
      context->save_for_backward({dx, dnorm.to(norm.scalar_type()), gradients.dhead.to(norm.scalar_type())});
    } else {
      losses = row_losses(normed.normed, arguments, nullptr);
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
  const bool needs_gradients = at::GradMode::is_enabled() && (in.x.requires_grad() || head.requires_grad());
  return HeadLossFunction::apply(
      in.x, in.update, norm, head,
      LossArguments{compute_head, targets.flatten(), eps, rows_per_chunk(compute_head, logit_bytes), needs_gradients});
}

at::Tensor head_token_losses(const Residual& in, const at::Tensor& norm, double eps, const at::Tensor& compute_head,
                             const at::Tensor& targets, int64_t logit_bytes) {
  const at::NoGradGuard no_grad;
  enter_part(Part::kOther);
  const Normed normed = add_rms_norm(in.x, in.update.value_or(at::Tensor()), norm, eps);
  return head_losses_of(normed.normed, compute_head, targets, logit_bytes);
}

at::Tensor head_losses_of(const at::Tensor& normed, const at::Tensor& compute_head, const at::Tensor& targets,
                          int64_t logit_bytes) {
  const at::NoGradGuard no_grad;
  const LossArguments arguments{compute_head, targets.flatten(), 0, rows_per_chunk(compute_head, logit_bytes), false};
  return row_losses(normed, arguments, nullptr).view(targets.sizes());
}

}  // namespace lighthouse
