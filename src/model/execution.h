// How a decoder computes: nothing of it changes the model, and but for `deterministic` not the bits either.
#pragma once

#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

#include "config/choices.h"
#include "model/weights.h"

namespace lighthouse {

struct Execution {
  /// Of activations, matrix products and attention: at::kFloat or at::kBFloat16; parameters, norm statistics, softmax
  /// and loss stay fp32. With at::kDouble, for checks, all but the parameters is fp64.
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  Recompute recompute = Recompute::kNone;
  int64_t offload_layers = 0;    ///< CUDA, with kFull: inputs of so many layers, the first, wait in pinned host memory
  int64_t recompute_layers = 1;  ///< with kFull: so many layers are computed again from the input of the first of them
  bool deterministic = false;    ///< attention on CUDA repeats its bits (lighthouse/ops.h says how, and its price)
  /// kHost, with at::kBFloat16: the device holds matrices in that dtype alone.
  WeightPlace weights = WeightPlace::kDevice;
};

}  // namespace lighthouse
