#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "lighthouse/check.h"
#include "train/host_transfer.h"

namespace lighthouse {
namespace {

at::Tensor gradient_of(const std::string& name, const at::Tensor& parameter) {
  LIGHTHOUSE_CHECK(parameter.grad().defined(), "optimizer: parameter '", name,
                   "' has no gradient; every parameter must take part in the loss");
  return parameter.grad();
}

/// As a view, with a count of its own of what is written to it.
at::Tensor elements(const at::Tensor& tensor, const Piece& piece) {
  return tensor.variable_data().view({-1}).slice(0, piece.begin, piece.end);
}

std::vector<Piece> whole(const NamedTensors& parameters) {
  std::vector<int64_t> sizes;
  for (const auto& [name, parameter] : parameters) sizes.push_back(parameter.numel());
  return pieces_of(sizes, kWholeParameters);
}

std::string first_name(const std::string& parameter) { return parameter + ".exp_avg"; }
std::string second_name(const std::string& parameter) { return parameter + ".exp_avg_sq"; }

}  // namespace

AdamW::AdamW(const NamedTensors& parameters, const OptimizerConfig& config)
    : AdamW(parameters, config, whole(parameters)) {}

AdamW::AdamW(const NamedTensors& parameters, const OptimizerConfig& config, const std::vector<Piece>& owned,
             MomentPlace place, std::optional<HostWeights> host_weights)
    : parameters_(parameters), config_(config), place_(place), host_weights_(std::move(host_weights)) {
  LIGHTHOUSE_CHECK(!parameters.empty(), "AdamW: no parameters");
  LIGHTHOUSE_CHECK(!host_weights_ || place_ == MomentPlace::kHost,
                   "AdamW: weights on the host need moments on the host, with which they pass through the device");
  for (const auto& [name, value] : values()) {
    LIGHTHOUSE_CHECK(value.scalar_type() == at::kFloat && value.is_contiguous(), "AdamW: parameter '", name,
                     "' must be fp32 and contiguous");
  }
  step_ = at::zeros({}, parameters.front().second.options().requires_grad(false));
  state_.emplace_back("step", step_);
  add_moments(owned);
}

at::Tensor AdamW::zeros(at::IntArrayRef sizes) const {
  return place_ == MomentPlace::kHost ? host_zeros(sizes, step_.device()) : at::zeros(sizes, step_.options());
}

void AdamW::add_moments(const std::vector<Piece>& owned) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> elements_owned(parameters_.size(), 0);
  for (const Piece& piece : owned) elements_owned[static_cast<size_t>(piece.parameter)] += piece.size();
  if (place_ == MomentPlace::kHost) {
    check_moment_room(std::accumulate(elements_owned.begin(), elements_owned.end(), int64_t{0}), step_.device());
  }
  std::vector<at::Tensor> exp_avgs(parameters_.size()), exp_avg_sqs(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, parameter] = parameters_[i];
    if (elements_owned[i] < parameter.numel()) continue;
    exp_avgs[i] = zeros(parameter.sizes());
    exp_avg_sqs[i] = zeros(parameter.sizes());
    state_.emplace_back(first_name(name), exp_avgs[i]);
    state_.emplace_back(second_name(name), exp_avg_sqs[i]);
  }
  for (const Piece& piece : owned) {
    const auto i = static_cast<size_t>(piece.parameter);
    const auto of_piece = [&](const at::Tensor& of_parameter) {
      return of_parameter.defined() ? elements(of_parameter, piece) : zeros({piece.size()});
    };
    moments_.push_back({piece, of_piece(exp_avgs[i]), of_piece(exp_avg_sqs[i])});
  }
}

std::vector<at::Tensor> AdamW::gradients() const {
  std::vector<at::Tensor> result;
  for (const Moments& moments : moments_) {
    const auto& [name, parameter] = parameters_[static_cast<size_t>(moments.piece.parameter)];
    result.push_back(elements(gradient_of(name, parameter), moments.piece));
  }
  return result;
}

at::Tensor AdamW::gradient_norms() const {
  const at::NoGradGuard no_grad;
  if (moments_.empty()) return at::zeros({0}, step_.options().dtype(at::kDouble));
  return at::stack(at::_foreach_norm(gradients(), 2, at::kDouble));
}

void AdamW::clip_gradients(double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm || moments_.empty()) return;
  const at::NoGradGuard no_grad;
  at::_foreach_mul_(gradients(), max_norm / norm);
}

bool AdamW::is_decayed(const Piece& piece) const {
  return parameters_[static_cast<size_t>(piece.parameter)].second.dim() >= 2;
}

void AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  step_.add_(1);
  step_group(true, learning_rate);
  step_group(false, learning_rate);
  // Nothing of this was counted, which autograd's checks and copies of the weights (ComputeWeights) go by. Of weights
  // on the host the copies are made.
  for (const auto& [name, parameter] : parameters_) parameter.unsafeGetTensorImpl()->bump_version();
}

void AdamW::step_group(bool decayed, double learning_rate) {
  const std::vector<at::Tensor> all_gradients = gradients();
  std::vector<at::Tensor> weights, of_group, exp_avgs, exp_avg_sqs, casts;
  for (size_t i = 0; i < moments_.size(); ++i) {
    const Moments& moments = moments_[i];
    if (is_decayed(moments.piece) != decayed) continue;
    const auto parameter = static_cast<size_t>(moments.piece.parameter);
    weights.push_back(elements(values()[parameter].second, moments.piece));
    of_group.push_back(all_gradients[i]);
    exp_avgs.push_back(moments.exp_avg);
    exp_avg_sqs.push_back(moments.exp_avg_sq);
    const at::Tensor cast = host_weights_ ? host_weights_->casts[parameter] : at::Tensor();
    if (cast.defined()) casts.push_back(elements(cast, moments.piece));
  }
  const auto update = [&](const std::vector<at::Tensor>& w, const std::vector<at::Tensor>& g,
                          const std::vector<at::Tensor>& m, const std::vector<at::Tensor>& v) {
    at::_fused_adamw_(w, g, m, v, /*max_exp_avg_sqs=*/{}, std::vector<at::Tensor>(w.size(), step_), learning_rate,
                      config_.beta1, config_.beta2, decayed ? config_.weight_decay : 0.0, config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  };
  if (weights.empty()) return;
  if (place_ == MomentPlace::kDevice) return update(weights, of_group, exp_avgs, exp_avg_sqs);
  std::vector<std::vector<at::Tensor>> on_host = {exp_avgs, exp_avg_sqs};
  if (!casts.empty()) on_host.push_back(weights);
  pass_through(on_host, step_.device(), [&](const TransferPart& part) {
    const at::Tensor values = casts.empty() ? part.of(weights) : part.values[2];
    update({values}, {part.of(of_group)}, {part.values[0]}, {part.values[1]});
    if (!casts.empty()) part.of(casts).copy_(values);
  });
}

void AdamW::check_state(const NamedTensors& state) const {
  const std::map<std::string, at::Tensor> given(state.begin(), state.end());
  const auto check = [&](const std::string& name, const at::Tensor& like) {
    const auto found = given.find(name);
    LIGHTHOUSE_CHECK(found != given.end(), "optimizer: the saved state has no tensor '", name,
                     "'; it belongs to another model");
    LIGHTHOUSE_CHECK(found->second.sizes() == like.sizes() && found->second.scalar_type() == like.scalar_type(),
                     "optimizer: saved tensor '", name, "' is ", found->second.scalar_type(), found->second.sizes(),
                     ", the model needs ", like.scalar_type(), like.sizes());
  };
  check("step", step_);
  for (const auto& [name, parameter] : parameters_) {
    check(first_name(name), parameter);
    check(second_name(name), parameter);
  }
  const size_t needed = 1 + 2 * parameters_.size();
  LIGHTHOUSE_CHECK(given.size() == needed, "optimizer: the saved state has ", given.size(), " tensors, not ", needed,
                   "; it belongs to another model");
}

void AdamW::load_state(const NamedTensors& state) {
  check_state(state);
  const at::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> given(state.begin(), state.end());
  step_.copy_(given.at("step"));
  for (const Moments& moments : moments_) {
    const std::string& name = parameters_[static_cast<size_t>(moments.piece.parameter)].first;
    moments.exp_avg.copy_(elements(given.at(first_name(name)).contiguous(), moments.piece));
    moments.exp_avg_sq.copy_(elements(given.at(second_name(name)).contiguous(), moments.piece));
  }
}

std::vector<TensorRange> AdamW::ranges() const {
  std::vector<TensorRange> result{{"step", {}, 0, step_.view({1})}};
  for (const Moments& moments : moments_) {
    const auto& [name, parameter] = parameters_[static_cast<size_t>(moments.piece.parameter)];
    const std::vector<int64_t> shape = parameter.sizes().vec();
    result.push_back({first_name(name), shape, moments.piece.begin, moments.exp_avg});
    result.push_back({second_name(name), shape, moments.piece.begin, moments.exp_avg_sq});
  }
  return result;
}

void AdamW::load_ranges(const std::vector<TensorRange>& saved) {
  const std::vector<TensorRange> own = ranges();
  const auto same = [](const TensorRange& a, const TensorRange& b) {
    return a.name == b.name && a.begin == b.begin && a.end() == b.end();
  };
  LIGHTHOUSE_CHECK(std::equal(own.begin(), own.end(), saved.begin(), saved.end(), same),
                   "optimizer: the saved moments are other ranges than its own");
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < own.size(); ++i) {
    const bool there = own[i].values.is_cpu() && own[i].values.data_ptr() == saved[i].values.data_ptr();
    if (!there) own[i].values.copy_(saved[i].values);
  }
}

void clear_gradients(const NamedTensors& parameters) {
  for (const auto& [name, parameter] : parameters) parameter.mutable_grad().reset();
}

}  // namespace lighthouse
