#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

at::Tensor gradient_of(const std::string& name, const at::Tensor& parameter) {
  LIGHTHOUSE_CHECK(parameter.grad().defined(), "optimizer: parameter '", name,
                   "' has no gradient; every parameter must take part in the loss");
  return parameter.grad();
}

std::vector<at::Tensor> gradients_of(const NamedTensors& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : parameters) gradients.push_back(gradient_of(name, parameter));
  return gradients;
}

}  // namespace

AdamW::AdamW(const NamedTensors& parameters, const OptimizerConfig& config) : config_(config) {
  LIGHTHOUSE_CHECK(!parameters.empty(), "AdamW: no parameters");
  step_ = at::zeros({}, parameters.front().second.options().requires_grad(false));
  state_.emplace_back("step", step_);
  decayed_.weight_decay = config.weight_decay;
  for (const auto& [name, parameter] : parameters) {
    LIGHTHOUSE_CHECK(parameter.scalar_type() == at::kFloat, "AdamW: parameter '", name, "' must be fp32");
    Group& group = parameter.dim() >= 2 ? decayed_ : not_decayed_;
    const at::NoGradGuard no_grad;
    group.parameters.emplace_back(name, parameter);
    group.exp_avgs.push_back(at::zeros_like(parameter));
    group.exp_avg_sqs.push_back(at::zeros_like(parameter));
    state_.emplace_back(name + ".exp_avg", group.exp_avgs.back());
    state_.emplace_back(name + ".exp_avg_sq", group.exp_avg_sqs.back());
  }
}

void AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  step_.add_(1);
  step_group(decayed_, learning_rate);
  step_group(not_decayed_, learning_rate);
}

void AdamW::step_group(const Group& group, double learning_rate) {
  if (group.parameters.empty()) return;
  std::vector<at::Tensor> parameters;
  for (const auto& [name, parameter] : group.parameters) parameters.push_back(parameter);
  const std::vector<at::Tensor> steps(parameters.size(), step_);
  at::_fused_adamw_(parameters, gradients_of(group.parameters), group.exp_avgs, group.exp_avg_sqs,
                    /*max_exp_avg_sqs=*/{}, steps, learning_rate, config_.beta1, config_.beta2, group.weight_decay,
                    config_.eps, /*amsgrad=*/false,
                    /*maximize=*/false);
  // The kernel writes without counting it, which autograd's checks and copies of the weights (ComputeWeights) go by.
  for (const at::Tensor& parameter : parameters) parameter.unsafeGetTensorImpl()->bump_version();
}

void AdamW::load_state(const NamedTensors& state) {
  const std::map<std::string, at::Tensor> given(state.begin(), state.end());
  for (const auto& [name, tensor] : state_) {
    const auto found = given.find(name);
    LIGHTHOUSE_CHECK(found != given.end(), "optimizer: the saved state has no tensor '", name,
                     "'; it belongs to another model");
    LIGHTHOUSE_CHECK(found->second.sizes() == tensor.sizes() && found->second.scalar_type() == tensor.scalar_type(),
                     "optimizer: saved tensor '", name, "' is ", found->second.scalar_type(), found->second.sizes(),
                     ", the model needs ", tensor.scalar_type(), tensor.sizes());
  }
  LIGHTHOUSE_CHECK(given.size() == state_.size(), "optimizer: the saved state has ", given.size(), " tensors, not ",
                   state_.size(), "; it belongs to another model");
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state_) tensor.copy_(given.at(name));
}

double gradient_norm(const NamedTensors& parameters) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> norms = at::_foreach_norm(gradients_of(parameters), 2, at::kDouble);
  return at::linalg_vector_norm(at::stack(norms), 2).item<double>();
}

void clip_gradients(const NamedTensors& parameters, double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return;
  const at::NoGradGuard no_grad;
  at::_foreach_mul_(gradients_of(parameters), max_norm / norm);
}

std::vector<std::string> non_finite_gradients(const NamedTensors& parameters) {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : parameters) {
    if (!at::isfinite(gradient_of(name, parameter)).all().item<bool>()) names.push_back(name);
  }
  return names;
}

void clear_gradients(const NamedTensors& parameters) {
  for (const auto& [name, parameter] : parameters) parameter.mutable_grad().reset();
}

}  // namespace lighthouse
