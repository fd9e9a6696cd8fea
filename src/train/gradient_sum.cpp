#include "train/gradient_sum.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>

#include <utility>
#include <vector>

#include "parallel/tree_schedule.h"

namespace lighthouse {
namespace {

std::vector<at::Tensor> take_gradients(const NamedTensors& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : parameters) {
    gradients.push_back(std::exchange(parameter.mutable_grad(), at::Tensor()));
  }
  return gradients;
}

void sum_in_tree(const NamedTensors& parameters, int64_t count, const std::function<void(int64_t)>& backward) {
  std::vector<std::vector<at::Tensor>> sums;
  for (const TreeStep& step : tree_schedule(count)) {
    backward(step.term);
    sums.push_back(take_gradients(parameters));
    for (int64_t merge = 0; merge < step.merges; ++merge) {
      const at::NoGradGuard no_grad;
      const std::vector<at::Tensor> last = std::move(sums.back());
      sums.pop_back();
      at::_foreach_add_(sums.back(), last);
    }
  }
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i].second.mutable_grad() = sums.front()[i];
}

}  // namespace

void sum_gradients(const NamedTensors& parameters, int64_t count, Accumulation accumulation,
                   const std::function<void(int64_t)>& backward) {
  if (accumulation == Accumulation::kTree && count > 1) {
    sum_in_tree(parameters, count, backward);
  } else {
    for (int64_t i = 0; i < count; ++i) backward(i);
  }
  for (const auto& [name, parameter] : parameters) {
    at::Tensor& gradient = parameter.mutable_grad();
    if (gradient.defined()) gradient = gradient.contiguous();
  }
}

}  // namespace lighthouse
