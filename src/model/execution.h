// How a decoder computes: nothing of it changes the model, and but for `deterministic` not the bits either.
#pragma once

#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

namespace lighthouse {

/// What backward computes again instead of keeping it.
enum class Recompute {
  kNone,       ///< no matrix product: norms, activations and scattered rows only
  kSelective,  ///< gate and up, more than half of what a layer keeps, for one product of three in backward
  kFull,       ///< all but the layers' inputs
};

struct Execution {
  /// Of activations, matrix products and attention: at::kFloat or at::kBFloat16; parameters, norm statistics, softmax
  /// and loss stay fp32. With at::kDouble, for checks, all but the parameters is fp64.
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  Recompute recompute = Recompute::kNone;
  bool offload = false;        ///< CUDA, with kFull: layer inputs wait in pinned host memory
  bool deterministic = false;  ///< attention on CUDA repeats its bits (lighthouse/ops.h says how, and its price)
};

}  // namespace lighthouse
