#include "train/gradient_sum.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <ranges>
#include <utility>
#include <vector>

#include "parallel/tree_schedule.h"

namespace lighthouse {
namespace {

using Gradients = std::vector<at::Tensor>;  ///< [parameters]
using Act = std::function<void(size_t parameter)>;

/// While it lives, autograd calls `act` when it has added a gradient to that of a parameter: in a backward pass once
/// for each, when all that the parameter takes part in has run.
class AfterAccumulation {
 public:
  AfterAccumulation(const NamedTensors& parameters, const Act& act) : parameters_(parameters) {
    for (size_t i = 0; i < parameters.size(); ++i) set(i, std::make_unique<Hook>(act, i));
  }
  ~AfterAccumulation() {
    for (size_t i = 0; i < parameters_.size(); ++i) set(i, nullptr);
  }
  AfterAccumulation(const AfterAccumulation&) = delete;
  AfterAccumulation& operator=(const AfterAccumulation&) = delete;

 private:
  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(const Act& on_gradient, size_t index) : act(on_gradient), parameter(index) {}
    void operator()(const at::Tensor& /*variable*/) override { act(parameter); }
    const Act& act;
    size_t parameter;
  };
  void set(size_t parameter, std::unique_ptr<torch::autograd::PostAccumulateGradHook> hook) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[parameter].second, std::move(hook));
  }
  const NamedTensors& parameters_;
};

Gradients take_gradients(const NamedTensors& parameters) {
  Gradients gradients;
  for (const auto& [name, parameter] : parameters) {
    gradients.push_back(std::exchange(parameter.mutable_grad(), at::Tensor()));
  }
  return gradients;
}

/// All micro-batches but the last, which adds to what is returned: the sums on the stack of the tree.
std::vector<Gradients> sum_in_tree(const NamedTensors& parameters, const std::vector<TreeStep>& steps,
                                   const std::function<void(int64_t)>& backward) {
  std::vector<Gradients> sums;
  for (size_t i = 0; i + 1 < steps.size(); ++i) {
    backward(steps[i].term);
    sums.push_back(take_gradients(parameters));
    for (int64_t merge = 0; merge < steps[i].merges; ++merge) {
      const at::NoGradGuard no_grad;
      const Gradients last = std::move(sums.back());
      sums.pop_back();
      at::_foreach_add_(sums.back(), last);
    }
  }
  return sums;
}

}  // namespace

void sum_gradients(const NamedTensors& parameters, int64_t count, Accumulation accumulation,
                   const std::function<void(int64_t)>& backward, const std::function<void(size_t)>& complete) {
  if (count == 0) return;
  std::vector<Gradients> sums;
  int64_t last = count - 1;
  if (accumulation == Accumulation::kTree) {
    const std::vector<TreeStep> steps = tree_schedule(count);
    last = steps.back().term;
    sums = sum_in_tree(parameters, steps, backward);
  } else {
    for (int64_t i = 0; i < last; ++i) backward(i);
  }
  std::vector<bool> is_complete(parameters.size(), false);
  const Act end = [&](size_t i) {
    const at::NoGradGuard no_grad;
    at::Tensor& gradient = parameters[i].second.mutable_grad();
    for (auto& sum : std::views::reverse(sums)) {
      sum[i].add_(gradient);
      gradient = std::exchange(sum[i], at::Tensor());
    }
    gradient = gradient.contiguous();
    is_complete[i] = true;
    if (complete) complete(i);
  };
  {
    const AfterAccumulation hooks(parameters, end);
    backward(last);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {  // the last micro-batch need not reach all of them
    if (!is_complete[i] && parameters[i].second.grad().defined()) end(i);
  }
}

}  // namespace lighthouse
