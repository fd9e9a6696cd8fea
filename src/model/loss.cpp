#include "model/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>

namespace lighthouse {

at::Tensor mean_cross_entropy(const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor sum =
      at::cross_entropy_loss(logits.flatten(0, -2), targets.flatten(), /*weight=*/{}, at::Reduction::Sum, kNoTarget);
  const at::Tensor count = targets.ne(kNoTarget).sum();
  return sum / count.clamp_min(1);  // the stock mean divides 0 by 0 when no target counts
}

}  // namespace lighthouse
