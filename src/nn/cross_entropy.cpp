#include "nn/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <limits>

#include "nn/arguments.h"
#include "nn/kernel_call.h"
#include "nn/kernels.h"

namespace lighthouse {
namespace {

/// Overwrites the logits unless `scale` is undefined.
at::Tensor losses(const char* function, const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& scale) {
  nn::check_activation(function, "logits", logits);
  nn::check_contiguous(function, "logits", logits);
  nn::check_vector(function, "targets", targets, nn::num_rows(logits), at::kLong, logits);
  if constexpr (nn::kWithCuda) {
    if (nn::has_kernel(logits, logits.size(-1), {&logits})) {
      const at::Tensor factor = scale.defined() ? scale.to(at::kFloat) : scale;
      at::Tensor loss = at::empty({nn::num_rows(logits)}, logits.options().dtype(at::kFloat));
      const nn::KernelCall call(logits);
      nn::cross_entropy({logits.mutable_data_ptr(), targets.const_data_ptr<int64_t>(),
                         factor.defined() ? factor.const_data_ptr<float>() : nullptr, loss.mutable_data_ptr<float>(),
                         nn::kernel_dtype(logits), nn::num_rows(logits), logits.size(-1), kIgnoredTarget},
                        call.stream());
      return loss;
    }
  }
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const int64_t vocab = logits.size(-1);
  const at::Tensor target = targets.reshape({-1, 1});
  const at::Tensor ignored = target.eq(kIgnoredTarget);
  const at::Tensor wrong = target.lt(0).logical_or_(target.ge(vocab));
  const at::Tensor word = target.masked_fill(wrong, 0);
  const at::Tensor log_softmax = at::log_softmax(logits.view({-1, vocab}), 1, nn::sum_dtype(logits));
  at::Tensor loss = log_softmax.gather(1, word).neg_().masked_fill_(wrong, kNaN).masked_fill_(ignored, 0);
  if (scale.defined()) {
    at::Tensor grad = log_softmax.exp();
    grad.scatter_(1, word, grad.gather(1, word) - 1);
    grad.mul_(scale).masked_fill_(wrong, kNaN).masked_fill_(ignored, 0);
    logits.view({-1, vocab}).copy_(grad);
  }
  return loss.view(-1);
}

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets) {
  return losses("cross_entropy", logits, targets, {});
}

at::Tensor cross_entropy_(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& scale) {
  LIGHTHOUSE_CHECK(scale.numel() == 1 && (scale.scalar_type() == at::kFloat || scale.scalar_type() == at::kDouble) &&
                       scale.device() == logits.device(),
                   "cross_entropy_: scale is ", c10::toString(scale.scalar_type()), " ", scale.sizes(), " on ",
                   scale.device(), "; must be one float32 or float64 on ", logits.device());
  return losses("cross_entropy_", logits, targets, scale.reshape({}));
}

}  // namespace lighthouse
