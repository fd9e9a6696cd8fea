// The first part of a block: norm, query, key and value heads, RoPE, and where the norm scorer selects for its
// attention selection and gather.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/residual.h"
#include "model/rope.h"
#include "model/weights.h"
#include "ops/gathering.h"

namespace lighthouse {

/// q [B, N, H, D], k and v [B, N, H_kv, D]: views of one tensor.
struct Heads {
  at::Tensor q, k, v;
};

struct QkvProjection {
  at::Tensor x;  ///< the sum of the residual stream
  Heads heads;
};

/// x = in.x + in.update, and the heads of RMSNorm(x) in the dtype of in, q and k turned by `rotation`.
/// Keeps x for backward, which needs neither the normed x nor the heads: the gradients of the projections come from x
/// and head gradients times 1 / rms, those of the norm from the projections' (src/nn/rms_norm.h).
QkvProjection qkv_projection(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute, double eps,
                             int64_t head_dim, const Rotation& rotation);

struct SelectedProjection {
  at::Tensor x;            ///< the sum of the residual stream
  ops::GatheredRows rows;  ///< gather_by_norm of the turned heads
};

/// What qkv_projection and gather_by_norm after it make. The heads live no longer than this call, and their gradient is
/// the packed one alone. Where CUDA has kernels for it (gather_turned_by_norm), no pass over the heads is RoPE's own:
/// the same rows, and gradients that are rounded once less often.
SelectedProjection selected_projection(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute,
                                       double eps, int64_t head_dim, const Rotation& rotation,
                                       const calls::SharedPlan& plan);

}  // namespace lighthouse
