#include "ops/cudnn_attention.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cudnn_blocks.h"
#include "ops/stock_rules.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows [.., D] that cuDNN can read where they lie.
bool is_readable(const at::Tensor& x) {
  if (x.stride(3) != 1 || reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kLoadBytes != 0) return false;
  for (int64_t i = 0; i < 3; ++i) {
    const bool fits = x.stride(i) > 0 && x.stride(i) * x.element_size() % kLoadBytes == 0;
    if (x.size(i) > 1 && !fits) return false;
  }
  return true;
}

struct CudnnAttention : torch::autograd::Function<CudnnAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double softmax_scale, const CudnnLimits* limits) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto result = at::_scaled_dot_product_cudnn_attention(
        q, k, v, /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true,
        /*return_debug_mask=*/false, softmax_scale);
    at::Tensor out = std::get<0>(result);
    context->save_for_backward({q, k, v, out, std::get<1>(result)});
    context->saved_data["softmax_scale"] = softmax_scale;
    context->saved_data["slice_bytes"] = limits->slice_bytes;
    context->saved_data["group_bytes"] = limits->group_bytes;
    return out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const CudnnLimits limits{context->saved_data["slice_bytes"].toInt(), context->saved_data["group_bytes"].toInt()};
    auto [dq, dk, dv] = blockwise_backward(saved[0], saved[1], saved[2], saved[3], saved[4], gradients[0],
                                           context->saved_data["softmax_scale"].toDouble(), limits);
    return {dq, dk, dv, at::Tensor(), at::Tensor()};  // none of the scale and the limits
  }
};

}  // namespace

bool cudnn_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                          const CudnnLimits& limits) {
  if (!q.is_cuda() || !at::globalContext().userEnabledCuDNNSDP()) return false;
  const bool is_16_bit = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  const int64_t head_dim = q.size(3);
  if (!is_16_bit || head_dim % 8 != 0 || head_dim == 0 || head_dim > 128 || q.size(2) < 2 || q.numel() == 0) {
    return false;
  }
  return is_readable(q) && is_readable(k) && is_readable(v) && blockwise_backward_runs(q, k, v, softmax_scale, limits);
}

at::Tensor cudnn_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                           const CudnnLimits& limits) {
  return CudnnAttention::apply(q, k, v, softmax_scale, &limits);
}

}  // namespace lighthouse::ops
