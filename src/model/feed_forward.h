// The second part of a block: norm and SwiGLU.
#pragma once

#include <cstdint>
#include <optional>

#include "model/residual.h"
#include "model/weights.h"

namespace lighthouse {

/// What a layer's forward pass is for: what it adds to the residual stream and, where there are gradients, its
/// backward, or, computed again, the latter alone.
enum class ForwardFor { kOutput, kBackward };

/// {h, SwiGLU(RMSNorm(h))} with h = in.x + in.update; for kBackward the second holds nothing. Keeps h for backward; for
/// kOutput gate and up [B, N, 2 ffn_dim] too where `keep_gate_up`, which are overwritten, so that there is one backward
/// pass. Otherwise, and where there will be none, it multiplies them out again, `tile_tokens` at a time
/// (feed_forward_tile.h says how many).
Residual feed_forward(const Residual& in, const LayerWeights& weights, const LayerMatrices& compute, double eps,
                      bool keep_gate_up, ForwardFor use = ForwardFor::kOutput,
                      std::optional<int64_t> tile_tokens = std::nullopt);

}  // namespace lighthouse
