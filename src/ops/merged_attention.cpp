#include "ops/merged_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

#include "ops/key_block.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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
    const auto [out, sum] = merge(before.attend(q, scale), own.attend(q, scale));
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
