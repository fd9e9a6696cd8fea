// Rotary position embedding, in the convention of transformers' Llama: channel c turns with channel c + D/2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "model/rope_frequencies.h"
#include "nn/rotation.h"
#include "parallel/context_plan.h"

namespace lighthouse {

/// Cosine and sine of position * frequency, for positions first, first + 1, ..., first + seq_len - 1.
Rotation make_rotation(int64_t first, int64_t seq_len, const RopeFrequencies& frequencies);
/// For packed documents [cu_seqlens[i], cu_seqlens[i + 1]): positions restart at 0 in each. Of `tokens` of the row, or
/// of all.
Rotation make_rotation(std::span<const int64_t> cu_seqlens, const RopeFrequencies& frequencies,
                       const std::optional<Span>& tokens = std::nullopt);

/// Turns every head of x [B, N, H, D]; fp32 inside (fp64 if x is), rounded once to `dtype`.
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation, at::ScalarType dtype);

}  // namespace lighthouse
