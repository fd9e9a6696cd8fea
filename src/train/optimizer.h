// AdamW with its whole state in named tensors, and what happens to gradients before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/run_config.h"
#include "model/weights.h"

namespace lighthouse {

/// AdamW (decoupled weight decay) in ATen's fused kernel. Of step t, for gradient g, all per element:
///   w -= rate * weight_decay * w                     matrices only
///   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
///   w -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
class AdamW {
 public:
  /// `parameters` are updated in place and must stay; fp32.
  AdamW(const NamedTensors& parameters, const OptimizerConfig& config);

  /// Applies the gradients that the parameters hold; every parameter must have one.
  void step(double learning_rate);

  /// "step" (updates done, fp32 scalar), then NAME.exp_avg and NAME.exp_avg_sq of every parameter: the live tensors.
  const NamedTensors& state() const { return state_; }
  /// Copies a state() into this one. Throws InvalidArgument naming the tensor when one is missing, unknown or of
  /// another shape; then nothing has changed.
  void load_state(const NamedTensors& state);

 private:
  struct Group {
    NamedTensors parameters;
    std::vector<at::Tensor> exp_avgs, exp_avg_sqs;
    double weight_decay = 0;
  };
  void step_group(const Group& group, double learning_rate);

  OptimizerConfig config_;
  at::Tensor step_;  ///< shared by all parameters
  Group decayed_, not_decayed_;
  NamedTensors state_;
};

/// The norm over all gradients, as fp64: finite unless a gradient is not. Sums in the order of the parameters, so two
/// runs give the same bits. One copy from the device to the host. Every parameter must have a gradient.
double gradient_norm(const NamedTensors& parameters);
/// Scales all gradients by max_norm / norm when norm > max_norm; max_norm 0: never.
void clip_gradients(const NamedTensors& parameters, double norm, double max_norm);
/// Names of the parameters whose gradient holds a NaN or an infinity.
std::vector<std::string> non_finite_gradients(const NamedTensors& parameters);
void clear_gradients(const NamedTensors& parameters);

}  // namespace lighthouse
