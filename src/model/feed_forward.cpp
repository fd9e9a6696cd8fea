#include "model/feed_forward.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FeedForwardArguments {
  at::Tensor gate_up_proj, down_proj;  ///< in the compute dtype
  double eps;
  bool keep_gate_up;
  ForwardFor use;
};

/// What is kept for backward.
struct KeptByFeedForward {
  at::Tensor h, inverse_rms, norm, gate_up_proj, down_proj;
  at::Tensor gate_up;  ///< undefined: it is multiplied out again

  explicit KeptByFeedForward(const variable_list& saved)
      : h(saved[0]),
        inverse_rms(saved[1]),
        norm(saved[2]),
        gate_up_proj(saved[3]),
        down_proj(saved[4]),
        gate_up(saved[5]) {}
};

struct FeedForwardFunction : torch::autograd::Function<FeedForwardFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*gate_proj*/, const at::Tensor& /*up_proj*/,
                               const at::Tensor& /*down_proj*/, const FeedForwardArguments& arguments) {
    const PartScope other(Part::kOther);
    const auto [h, normed, inverse_rms] = add_rms_norm(x, update.value_or(at::Tensor()), norm, arguments.eps);
    const at::Tensor gate_up = project(normed, arguments.gate_up_proj);
    context->saved_data["has_update"] = update.has_value();
    context->save_for_backward({h, inverse_rms, norm, arguments.gate_up_proj, arguments.down_proj,
                                arguments.keep_gate_up ? gate_up : at::Tensor()});
    context->saved_data["eps"] = arguments.eps;
    context->saved_data["overwrites"] = arguments.keep_gate_up;
    return {h,
            arguments.use == ForwardFor::kOutput ? project(swiglu(gate_up), arguments.down_proj) : at::empty_like(h)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const PartScope other(Part::kOther);
    // Kernels of ours write without autograd's count of writes, which would notice only what ATen's have done.
    TORCH_CHECK(
        context->saved_data.count("overwritten") == 0,
        "feed_forward: a second backward pass, and the first has overwritten what forward kept; run forward again");
    if (context->saved_data["overwrites"].toBool()) context->saved_data["overwritten"] = true;
    const KeptByFeedForward kept(context->get_saved_variables());
    const auto& [h, inverse_rms, norm, gate_up_proj, down_proj, kept_gate_up] = kept;
    const at::Tensor gate_up =
        kept_gate_up.defined()
            ? kept_gate_up
            : project(add_rms_norm(h, {}, norm, context->saved_data["eps"].toDouble()).normed, gate_up_proj);
    const at::Tensor& dout = gradients[1];
    at::Tensor hidden = project_back(dout, down_proj);  // its gradient, until the next line but one
    swiglu_backward_(gate_up, hidden, inverse_rms);
    const at::Tensor ddown = matrix_gradient(dout, hidden).to(at::kFloat);
    hidden.reset();
    at::Tensor dgate_up = matrix_gradient(gate_up, h);
    const at::Tensor dnormed = project_back(gate_up, gate_up_proj);
    const at::Tensor dnorm = split_norm_gradient_(dgate_up, gate_up_proj, norm);
    const at::Tensor din = rms_norm_backward_(dnormed, h, norm, inverse_rms, gradients[0].contiguous());
    dgate_up = dgate_up.to(at::kFloat);
    const int64_t ffn_dim = down_proj.size(1);
    return {din,
            context->saved_data["has_update"].toBool() ? din : at::Tensor(),
            dnorm.to(norm.scalar_type()),
            dgate_up.narrow(0, 0, ffn_dim),
            dgate_up.narrow(0, ffn_dim, ffn_dim),
            ddown,
            at::Tensor()};
  }
};

}  // namespace

Residual feed_forward(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute, double eps,
                      bool keep_gate_up, ForwardFor use) {
  const variable_list outputs = FeedForwardFunction::apply(
      in.x, in.update, weights.post_attention_norm, weights.gate_proj, weights.up_proj, weights.down_proj,
      FeedForwardArguments{compute.gate_up_proj, compute.down_proj, eps, keep_gate_up, use});
  return {outputs[0], outputs[1]};
}

}  // namespace lighthouse
