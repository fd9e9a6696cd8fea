// The first part of a block whose attention the norm scorer selects for: norm, heads, RoPE, selection and gather.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/compute_weights.h"
#include "model/residual.h"
#include "model/rope.h"
#include "model/weights.h"
#include "ops/gathering.h"

namespace lighthouse {

struct SelectedProjection {
  at::Tensor x;            ///< the sum of the residual stream
  ops::GatheredRows rows;  ///< gather_by_norm of the turned heads
};

/// What qkv_projection and gather_by_norm after it make. The heads live no longer than this call, and their gradient is
/// the packed one alone. Where CUDA has kernels for it (gather_turned_by_norm), no pass over the heads is RoPE's own:
/// the same rows, and gradients that are rounded once less often.
SelectedProjection selected_projection(const Residual& in, const LayerWeights& weights, const ComputeLayer& compute,
                                       double eps, int64_t head_dim, const Rotation& rotation,
                                       const calls::SharedPlan& plan);

}  // namespace lighthouse
