// The matrices as the products read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/weights.h"

namespace lighthouse {

/// Of one layer; shapes as in LayerWeights.
struct ComputeLayer {
  at::Tensor qkv_proj, o_proj, gate_up_proj, down_proj;
};

/// Copies of the matrices in the compute dtype, or the matrices themselves where that is fp32. No autograd.
class ComputeWeights {
 public:
  ComputeWeights() = default;
  ComputeWeights(const Weights& weights, at::ScalarType dtype);

  /// Copies all again if one was written to, through torch, since the last time.
  void refresh();

  std::vector<ComputeLayer> layers;
  at::Tensor embed_tokens, lm_head;  ///< one tensor when tied

 private:
  at::Tensor add(const at::Tensor& source);

  at::ScalarType dtype_ = at::kFloat;
  std::vector<at::Tensor> sources_, targets_;  ///< what is copied to where
  int64_t copied_version_ = -1;                ///< of the sources, when they were copied
};

}  // namespace lighthouse
