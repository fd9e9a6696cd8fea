#include "model/feed_forward.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "model/part_clock.h"
#include "model/products.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"
#include "plan/feed_forward_tile.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FeedForwardArguments {
  at::Tensor gate_up_proj, down_proj;  ///< in the compute dtype
  double eps;
  bool keep_gate_up;
  ForwardFor use;
  int64_t tile_tokens;
};

/// What nobody reads in the place of a tensor like x: of its sizes, in the memory of one element.
at::Tensor without_values(const at::Tensor& x) {
  return at::empty_strided(x.sizes(), std::vector<int64_t>(static_cast<size_t>(x.dim()), 0), x.options());
}

/// What is kept for backward.
struct KeptByFeedForward {
  at::Tensor h, inverse_rms, norm, gate_up_proj, down_proj;
  at::Tensor gate_up, normed;  ///< one of them, or undefined: it is computed again

  explicit KeptByFeedForward(const variable_list& saved)
      : h(saved[0]),
        inverse_rms(saved[1]),
        norm(saved[2]),
        gate_up_proj(saved[3]),
        down_proj(saved[4]),
        gate_up(saved[5]),
        normed(saved[6]) {}
};

/// visit(tile) for tiles of tokens, one after another; tile(x) are the rows of x [rows, ..] that are in it.
template <typename Visit>
void for_each_tile(int64_t num_rows, int64_t tile_tokens, const Visit& visit) {
  for (int64_t begin = 0; begin < num_rows; begin += tile_tokens) {
    const int64_t end = std::min(begin + tile_tokens, num_rows);
    visit([begin, end](const at::Tensor& x) { return x.slice(0, begin, end); });
  }
}

/// SwiGLU(normed) of `normed` [rows, C], by the tiles of backward, whose products then have the same bits. `gate_up`
/// [rows, 2F] is written too where it is defined.
at::Tensor by_tiles(const at::Tensor& normed, const FeedForwardArguments& arguments, const at::Tensor& gate_up) {
  at::Tensor out = at::empty_like(normed);
  for_each_tile(normed.size(0), arguments.tile_tokens, [&](const auto& tile) {
    at::Tensor tile_gate_up = gate_up.defined()
                                  ? tile(gate_up)
                                  : at::empty({tile(normed).size(0), arguments.gate_up_proj.size(0)}, normed.options());
    project_to(tile_gate_up, tile(normed), arguments.gate_up_proj);
    at::Tensor tile_out = tile(out);
    project_to(tile_out, swiglu(tile_gate_up), arguments.down_proj);
  });
  return out;
}

/// Gradients of the matrices, that of gate and up without the norm's weight, and of what they are given, times its
/// inverse_rms.
struct FeedForwardGradients {
  at::Tensor dgate_up, ddown;  ///< fp32, or fp64 where the input is
  at::Tensor dnormed;          ///< [rows, C]
};

/// A tile of tokens after another, so that of gate, up and what becomes of them no more than that is there at a time.
FeedForwardGradients backward_by_tiles(const KeptByFeedForward& kept, const at::Tensor& dout, double eps,
                                       int64_t tile_tokens) {
  const at::Tensor h = as_rows(kept.h), dout_rows = as_rows(dout);
  FeedForwardGradients sums;
  sums.dnormed = at::empty_like(h);
  for_each_tile(h.size(0), tile_tokens, [&](const auto& tile) {
    const auto normed = [&] {
      return kept.normed.defined() ? tile(as_rows(kept.normed)) : add_rms_norm(tile(h), {}, kept.norm, eps).normed;
    };
    const at::Tensor gate_up = kept.gate_up.defined() ? tile(kept.gate_up) : project(normed(), kept.gate_up_proj);
    at::Tensor hidden = project_back(tile(dout_rows), kept.down_proj);  // its gradient, until the next line
    swiglu_backward_(gate_up, hidden, tile(kept.inverse_rms));
    const auto add = [](at::Tensor& sum, const at::Tensor& grad, const at::Tensor& x) {
      if (sum.defined()) return add_matrix_gradient(sum, grad, x);
      sum = matrix_gradient(grad, x);
    };
    add(sums.ddown, tile(dout_rows), hidden);
    hidden.reset();
    add(sums.dgate_up, gate_up, tile(h));
    at::Tensor dnormed = tile(sums.dnormed);
    project_back_to(dnormed, gate_up, kept.gate_up_proj);
  });
  return sums;
}

struct FeedForwardFunction : torch::autograd::Function<FeedForwardFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& update,
                               const at::Tensor& norm, const at::Tensor& /*gate_proj*/, const at::Tensor& /*up_proj*/,
                               const at::Tensor& /*down_proj*/, const FeedForwardArguments& arguments) {
    const PartScope other(Part::kOther);
    const auto [h, normed, inverse_rms] = add_rms_norm(x, update.value_or(at::Tensor()), norm, arguments.eps);
    const bool for_output = arguments.use == ForwardFor::kOutput;
    const at::Tensor rows = as_rows(normed);
    at::Tensor gate_up;
    if (for_output && arguments.keep_gate_up) {
      gate_up = at::empty({rows.size(0), arguments.gate_up_proj.size(0)}, rows.options());
    }
    context->saved_data["has_update"] = update.has_value();
    context->save_for_backward({h, inverse_rms, norm, arguments.gate_up_proj, arguments.down_proj, gate_up,
                                for_output ? at::Tensor() : normed});
    context->saved_data["eps"] = arguments.eps;
    context->saved_data["overwrites"] = gate_up.defined();
    context->saved_data["tile_tokens"] = arguments.tile_tokens;
    return {h, for_output ? by_tiles(rows, arguments, gate_up).view_as(h) : without_values(h)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const PartScope other(Part::kOther);
    // Kernels of ours write without autograd's count of writes, which would notice only what ATen's have done.
    TORCH_CHECK(
        context->saved_data.count("overwritten") == 0,
        "feed_forward: a second backward pass, and the first has overwritten what forward kept; run forward again");
    if (context->saved_data["overwrites"].toBool()) context->saved_data["overwritten"] = true;
    const KeptByFeedForward kept(context->get_saved_variables());
    FeedForwardGradients sums = backward_by_tiles(kept, gradients[1], context->saved_data["eps"].toDouble(),
                                                  context->saved_data["tile_tokens"].toInt());
    const at::Tensor dnorm = split_norm_gradient_(sums.dgate_up, kept.gate_up_proj, kept.norm);
    const at::Tensor din =
        rms_norm_backward_(sums.dnormed, kept.h, kept.norm, kept.inverse_rms, gradients[0].contiguous());
    const at::Tensor dgate_up = sums.dgate_up.to(at::kFloat);
    const int64_t ffn_dim = kept.down_proj.size(1);
    return {din,
            context->saved_data["has_update"].toBool() ? din : at::Tensor(),
            dnorm.to(kept.norm.scalar_type()),
            dgate_up.narrow(0, 0, ffn_dim),
            dgate_up.narrow(0, ffn_dim, ffn_dim),
            sums.ddown.to(at::kFloat),
            at::Tensor()};
  }
};

}  // namespace

Residual feed_forward(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute, double eps,
                      bool keep_gate_up, ForwardFor use, std::optional<int64_t> tile_tokens) {
  const variable_list outputs = FeedForwardFunction::apply(
      in.x, in.update, weights.post_attention_norm, weights.gate_proj, weights.up_proj, weights.down_proj,
      FeedForwardArguments{
          compute.gate_up_proj, compute.down_proj, eps, keep_gate_up && at::GradMode::is_enabled(), use,
          tile_tokens.value_or(feed_forward_tile(compute.down_proj.size(1), compute.down_proj.element_size()))});
  return {outputs[0], outputs[1]};
}

}  // namespace lighthouse
