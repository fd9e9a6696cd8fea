#include "model/feed_forward.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Arguments {
  at::Tensor gate_up_proj, down_proj;  ///< in the compute dtype
  double eps;
  bool keep_gate_up;
};

struct FeedForwardFunction : torch::autograd::Function<FeedForwardFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*gate_proj*/, const at::Tensor& /*up_proj*/,
                               const at::Tensor& /*down_proj*/, const Arguments& arguments) {
    enter_part(Part::kOther);
    const auto [h, normed, inverse_rms] = add_rms_norm(x, update.value_or(at::Tensor()), norm, arguments.eps);
    const at::Tensor gate_up = project(normed, arguments.gate_up_proj);
    enter_part(Part::kOther);
    const at::Tensor hidden = swiglu(gate_up);
    context->saved_data["has_update"] = update.has_value();
    context->save_for_backward({h, inverse_rms, norm, arguments.gate_up_proj, arguments.down_proj,
                                arguments.keep_gate_up ? gate_up : at::Tensor()});
    context->saved_data["eps"] = arguments.eps;
    context->saved_data["overwrites"] = arguments.keep_gate_up;
    return {h, project(hidden, arguments.down_proj)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    // Kernels of ours write without autograd's count of writes, which would notice only what ATen's have done.
    TORCH_CHECK(
        context->saved_data.count("overwritten") == 0,
        "feed_forward: a second backward pass, and the first has overwritten what forward kept; run forward again");
    if (context->saved_data["overwrites"].toBool()) context->saved_data["overwritten"] = true;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& h = saved[0];
    const at::Tensor& inverse_rms = saved[1];
    const at::Tensor& norm = saved[2];
    const at::Tensor& gate_up_proj = saved[3];
    const at::Tensor& down_proj = saved[4];
    at::Tensor gate_up = saved[5];
    if (!gate_up.defined()) {
      enter_part(Part::kOther);
      gate_up = project(add_rms_norm(h, {}, norm, context->saved_data["eps"].toDouble()).normed, gate_up_proj);
    }
    const at::Tensor& dout = gradients[1];
    at::Tensor hidden = project_back(dout, down_proj);  // its gradient, until the next line but one
    enter_part(Part::kOther);
    swiglu_backward_(gate_up, hidden, inverse_rms);
    const at::Tensor ddown = matrix_gradient(dout, hidden).to(at::kFloat);
    hidden.reset();
    at::Tensor dgate_up = matrix_gradient(gate_up, h);
    const at::Tensor dnormed = project_back(gate_up, gate_up_proj);
    enter_part(Part::kOther);
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
                      bool keep_gate_up) {
  const variable_list outputs = FeedForwardFunction::apply(
      in.x, in.update, weights.post_attention_norm, weights.gate_proj, weights.up_proj, weights.down_proj,
      Arguments{compute.gate_up_proj, compute.down_proj, eps, keep_gate_up});
  return {outputs[0], outputs[1]};
}

}  // namespace lighthouse
