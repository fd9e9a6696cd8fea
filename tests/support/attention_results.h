// An attention and its gradients, for tests that compare two.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

namespace lighthouse::test_support {

/// o, dq, dk, dv of attention(q, k, v), given `inputs` with q, k, v and dout.
template <typename Inputs, typename Attention>
std::vector<at::Tensor> attention_results(const Inputs& inputs, const Attention& attention) {
  const at::Tensor q = inputs.q.detach().requires_grad_();
  const at::Tensor k = inputs.k.detach().requires_grad_();
  const at::Tensor v = inputs.v.detach().requires_grad_();
  const at::Tensor out = attention(q, k, v);
  std::vector<at::Tensor> results = torch::autograd::grad({out}, {q, k, v}, {inputs.dout});
  results.insert(results.begin(), out.detach());
  return results;
}

}  // namespace lighthouse::test_support
