// The heads' way back into the residual stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "model/weights.h"
#include "ops/gathering.h"
#include "parallel/context_row.h"

namespace lighthouse {

/// o [B, N, H, D] -> [B, N, dim]. Keeps o for backward.
///
/// With a gathering `o` are rows [B, H, S, D], and what they scatter to is projected. Kept are the rows, as the
/// attention before keeps them too: they are scattered again in backward.
at::Tensor output_projection(const at::Tensor& o, const std::optional<ops::Gathering>& gathering,
                             const LayerWeights& weights, const LayerMatrices& compute);

/// The same of o of what this rank attends to, as attend_on_heads makes it, of a row that ranks share: [B, N_r, dim] of
/// this rank's tokens. `gathering`: of its rows, where the row selects. Keeps the rows. In backward the gradient of o
/// is on its way while that of the matrix is made.
at::Tensor shared_output_projection(const at::Tensor& o, const ops::Gathering& gathering, const SharedRow& row,
                                    const LayerWeights& weights, const LayerMatrices& compute);

}  // namespace lighthouse
