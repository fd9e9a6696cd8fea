#include "ops/merged_attention.h"

#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

#include "ops/gathering.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Keys and values that queries see alike: all, or causally.
struct KeyBlock {
  KeyBlock(const at::Tensor& all_keys, const at::Tensor& all_values, int64_t begin, int64_t size, bool is_causal)
      : k(all_keys.narrow(2, begin, size)), v(all_values.narrow(2, begin, size)), causal(is_causal) {}

  bool goes_to_cudnn(const at::Tensor& q, double scale) const {
    const int64_t choice = at::_fused_sdp_choice(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, causal, scale,
                                                 /*enable_gqa=*/q.size(1) != k.size(1));
    return choice == static_cast<int64_t>(at::SDPBackend::cudnn_attention);
  }
  /// The output, and the logarithms of sums of exponentials: [B, H, n] on the CPU, [B, H, n, 1] of cuDNN.
  TwoTensors attend(const at::Tensor& q, double scale) const {
    if (!q.is_cuda()) {
      return at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0.0, causal,
                                                             /*attn_mask=*/std::nullopt, scale);
    }
    const auto result = at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/std::nullopt,
                                                                /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, causal,
                                                                /*return_debug_mask=*/false, scale);
    return {std::get<0>(result), std::get<1>(result)};
  }
  ThreeTensors gradients(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& out,
                         const at::Tensor& logsumexp, double scale) const {
    if (!q.is_cuda()) {
      return at::_scaled_dot_product_flash_attention_for_cpu_backward(dout, q, k, v, out, logsumexp, /*dropout_p=*/0.0,
                                                                      causal, /*attn_mask=*/std::nullopt, scale);
    }
    const at::Tensor none, of_dropout = at::empty({}, q.options().dtype(at::kLong));  // there is no dropout to repeat
    return at::_scaled_dot_product_cudnn_attention_backward(dout, q, k, v, out, logsumexp, of_dropout, of_dropout, none,
                                                            none, none, q.size(2), k.size(2), /*dropout_p=*/0.0, causal,
                                                            scale);
  }

  at::Tensor k, v;
  bool causal;
};

/// The keys before all queries, and theirs.
std::tuple<KeyBlock, KeyBlock> blocks_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t own = q.size(2), before = k.size(2) - own;
  return {KeyBlock(k, v, 0, before, false), KeyBlock(k, v, before, own, true)};
}

struct MergedAttention : torch::autograd::Function<MergedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [before, own] = blocks_of(q, k, v);
    const auto [out_before, sum_before] = before.attend(q, scale);
    const auto [out_own, sum_own] = own.attend(q, scale);
    const at::Tensor sum = at::logaddexp(sum_before, sum_own);  // fp32 or fp64
    const auto share = [&](const at::Tensor& out, const at::Tensor& part) {
      const at::Tensor weight = (part - sum).exp_();
      return (weight.dim() == 3 ? weight.unsqueeze(3) : weight) * out;
    };
    const at::Tensor out = share(out_before, sum_before).add_(share(out_own, sum_own)).to(q.scalar_type());
    context->save_for_backward({q, k, v, out, sum});
    context->saved_data["scale"] = scale;
    return out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &out = saved[3], &sum = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const at::Tensor dout = gradients[0].contiguous();
    const auto [before, own] = blocks_of(q, saved[1], saved[2]);
    const auto [dq_before, dk_before, dv_before] = before.gradients(dout, q, out, sum, scale);
    const auto [dq_own, dk_own, dv_own] = own.gradients(dout, q, out, sum, scale);
    const at::Tensor dq = (dq_before.to(sum.scalar_type()) + dq_own).to(q.scalar_type());
    return {dq, at::cat({dk_before, dk_own}, 2), at::cat({dv_before, dv_own}, 2), at::Tensor()};
  }
};

}  // namespace

bool merged_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale) {
  if (!q.is_cuda()) return true;
  const auto [before, own] = blocks_of(q, k, v);
  return before.goes_to_cudnn(q, softmax_scale) && own.goes_to_cudnn(q, softmax_scale);
}

at::Tensor merged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale) {
  return MergedAttention::apply(q, k, v, softmax_scale);
}

}  // namespace lighthouse::ops
