// AdamW with its whole state in named tensors, and what happens to gradients before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "model/tensor_range.h"
#include "model/weights.h"
#include "parallel/pieces.h"

namespace lighthouse {

/// Where moments wait from one update to the next: beside the parameters, or in the memory of the host.
enum class MomentPlace { kDevice, kHost };

/// Parameters whose matrices have their values on the host, as Decoder has them with Execution::weights = kHost.
struct HostWeights {
  NamedTensors values;            ///< fp32, contiguous: of all parameters, in order
  std::vector<at::Tensor> casts;  ///< [parameters], on the device; undefined where the value is there itself
};

/// AdamW (decoupled weight decay) in ATen's fused kernel. Of step t, for gradient g, all per element:
///   w -= rate * weight_decay * w                     matrices only
///   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
///   w -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
///
/// It owns pieces of the parameters: all of them, or what one rank of several updates (ZeRO-1). The moments of others
/// take no memory. An update of a piece has the same bits wherever it is made, and with the moments on the host too:
/// they pass through the device, 8 bytes a parameter each way (host_transfer.h), and with them the matrices where these
/// are there too, 12 bytes; what products read of these is cast on the way.
class AdamW {
 public:
  /// What it knows of a piece: live tensors [end - begin].
  struct Moments {
    Piece piece;
    at::Tensor exp_avg, exp_avg_sq;
  };

  /// `parameters` are updated in place and must stay; fp32, contiguous.
  AdamW(const NamedTensors& parameters, const OptimizerConfig& config);
  /// The same for `owned` pieces alone, in order. With `host_weights`, which need moments on the host, these are
  /// updated and `parameters` have but the gradients. Throws std::runtime_error where the host has no memory for
  /// moments that are to be there.
  AdamW(const NamedTensors& parameters, const OptimizerConfig& config, const std::vector<Piece>& owned,
        MomentPlace place = MomentPlace::kDevice, std::optional<HostWeights> host_weights = std::nullopt);

  /// Norms of the gradients of the pieces, fp64 [pieces] on their device: finite unless a gradient is not. Throws
  /// InvalidArgument, here and below, naming a parameter without gradient.
  at::Tensor gradient_norms() const;
  /// Scales the gradients of the pieces by max_norm / norm when norm > max_norm; max_norm 0: never.
  void clip_gradients(double norm, double max_norm);
  /// Applies the gradients that the parameters hold.
  void step(double learning_rate);

  /// "step" (updates done, fp32 scalar), then NAME.exp_avg and NAME.exp_avg_sq of every parameter of which it owns all:
  /// the live tensors.
  const NamedTensors& state() const { return state_; }
  const std::vector<Moments>& moments() const { return moments_; }
  /// The same as ranges: "step", then the moments of the pieces that it owns. Live.
  std::vector<TensorRange> ranges() const;
  /// Copies the values of other ranges(), the same ones, into these. Throws InvalidArgument where they are not.
  void load_ranges(const std::vector<TensorRange>& saved);
  /// Copies a state() of all parameters into this one. Throws InvalidArgument naming the tensor when one is missing,
  /// unknown or of another shape; then nothing has changed.
  void load_state(const NamedTensors& state);

 private:
  void check_state(const NamedTensors& state) const;
  void add_moments(const std::vector<Piece>& owned);
  at::Tensor zeros(at::IntArrayRef sizes) const;
  std::vector<at::Tensor> gradients() const;
  const NamedTensors& values() const { return host_weights_ ? host_weights_->values : parameters_; }
  void step_group(bool decayed, double learning_rate);
  bool is_decayed(const Piece& piece) const;

  NamedTensors parameters_;
  OptimizerConfig config_;
  MomentPlace place_;
  std::optional<HostWeights> host_weights_;
  at::Tensor step_;  ///< shared by all parameters
  std::vector<Moments> moments_;
  NamedTensors state_;
};

void clear_gradients(const NamedTensors& parameters);

}  // namespace lighthouse
