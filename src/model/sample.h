// The choice of the next token from logits.
#pragma once

#include <cstdint>
#include <span>

namespace lighthouse {

/// The index of the largest logit, the lowest one on ties.
int64_t likeliest_token(std::span<const float> logits);

/// A token drawn from softmax(logits / temperature) cut to the nucleus: its likeliest tokens, in falling order (ties:
/// the lower token first), up to and with the one that brings their probability to top_p. `uniform`, in [0, 1), is
/// where in the nucleus to land.
int64_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform);

}  // namespace lighthouse
