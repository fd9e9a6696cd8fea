// Lighthouse attention on PyTorch tensors, forward and backward.
#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <lighthouse/ops.h>

#include <iostream>

int main() {
  const auto device = at::TensorOptions().device(at::hasCUDA() ? at::kCUDA : at::kCPU);
  const at::Tensor q = at::randn({1, 4096, 8, 64}, device).requires_grad_();  // [B, N, H, d]
  const at::Tensor k = at::randn({1, 4096, 2, 64}, device).requires_grad_();  // [B, N, H_kv, d]
  const at::Tensor v = at::randn({1, 4096, 2, 64}, device).requires_grad_();

  lighthouse::AttentionOptions options;
  options.selection_config = {.num_levels = 3, .pooling_factor = 4, .topk = 256};
  at::Tensor o = lighthouse::lighthouse_attention(q, k, v, options);  // [B, N, H, d], with autograd

  o.square().mean().backward();
  std::cout << "4096 tokens, " << lighthouse::gathered_length(4096, options.selection_config) << " rows attended to on "
            << o.device() << ", |dq| = " << q.grad().norm().item<double>() << "\n";
}
