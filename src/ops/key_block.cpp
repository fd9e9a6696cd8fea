#include "ops/key_block.h"

#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>

#include <tuple>

namespace lighthouse::ops {

KeyBlock::KeyBlock(const at::Tensor& all_keys, const at::Tensor& all_values, int64_t begin, int64_t size,
                   bool is_causal)
    : k(all_keys.narrow(2, begin, size)), v(all_values.narrow(2, begin, size)), causal(is_causal) {}

bool KeyBlock::goes_to_cudnn(const at::Tensor& q, double scale) const {
  const int64_t choice = at::_fused_sdp_choice(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, causal, scale,
                                               /*enable_gqa=*/q.size(1) != k.size(1));
  return choice == static_cast<int64_t>(at::SDPBackend::cudnn_attention);
}

TwoTensors KeyBlock::attend(const at::Tensor& q, double scale) const {
  if (!q.is_cuda()) {
    return at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0.0, causal,
                                                           /*attn_mask=*/std::nullopt, scale);
  }
  const auto result = at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/std::nullopt,
                                                              /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, causal,
                                                              /*return_debug_mask=*/false, scale);
  return {std::get<0>(result), std::get<1>(result)};
}

ThreeTensors KeyBlock::gradients(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& out,
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

TwoTensors merge(const TwoTensors& one, const TwoTensors& other) {
  const auto& [out_one, sum_one] = one;
  const auto& [out_other, sum_other] = other;
  const at::Tensor sum = at::logaddexp(sum_one, sum_other);  // fp32 or fp64
  const auto share = [&](const at::Tensor& out, const at::Tensor& part) {
    const at::Tensor weight = (part - sum).exp_();
    return (weight.dim() == 3 ? weight.unsqueeze(3) : weight) * out;
  };
  return {share(out_one, sum_one).add_(share(out_other, sum_other)).to(out_one.scalar_type()), sum};
}

}  // namespace lighthouse::ops
