#include "ops/long_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "ops/key_block.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LongAttention : torch::autograd::Function<LongAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, int64_t block_rows) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    at::Tensor out = at::empty_like(q);
    std::vector<at::Tensor> sums;
    for (int64_t begin = 0; begin < q.size(2); begin += block_rows) {
      const int64_t rows = std::min(block_rows, q.size(2) - begin);
      const at::Tensor queries = q.narrow(2, begin, rows);
      TwoTensors result = KeyBlock(k, v, begin, rows, /*is_causal=*/true).attend(queries, scale);
      if (begin > 0) result = merge(KeyBlock(k, v, 0, begin, /*is_causal=*/false).attend(queries, scale), result);
      out.narrow(2, begin, rows).copy_(std::get<0>(result));
      sums.push_back(std::get<1>(result));
    }
    context->save_for_backward({q, k, v, out, at::cat(sums, 2)});
    context->saved_data["scale"] = scale;
    return out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& q = saved[0];
    const KeyBlock all(saved[1], saved[2], 0, q.size(2), /*is_causal=*/true);
    const auto [dq, dk, dv] =
        all.gradients(gradients[0], q, saved[3], saved[4], context->saved_data["scale"].toDouble());
    return {dq, dk, dv, at::Tensor(), at::Tensor()};  // none of the scale and the rows of a block
  }
};

}  // namespace

bool long_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                         int64_t block_rows) {
  if (!q.is_cuda() || q.size(2) <= block_rows) return !q.is_cuda();
  const at::Tensor queries = q.narrow(2, block_rows, std::min(block_rows, q.size(2) - block_rows));
  return KeyBlock(k, v, 0, q.size(2), true).goes_to_cudnn(q, softmax_scale) &&
         KeyBlock(k, v, 0, block_rows, false).goes_to_cudnn(queries, softmax_scale) &&
         KeyBlock(k, v, block_rows, queries.size(2), true).goes_to_cudnn(queries, softmax_scale);
}

at::Tensor long_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                          int64_t block_rows) {
  return LongAttention::apply(q, k, v, softmax_scale, block_rows);
}

}  // namespace lighthouse::ops
