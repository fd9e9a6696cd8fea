// What the composed operators demand of options that no tensor is needed for. Python composes by itself, and has the
// same checks in python/lighthouse_attention/functional.py; a test holds the two to the same words.
#pragma once

#include <cstdint>
#include <optional>
#include "lighthouse/scorer.h"

namespace lighthouse::ops {

/// A positive, finite scale.
void check_softmax_scale(const char* operation, std::optional<double> softmax_scale);

/// A known scorer, a dilation >= 1, and a gate where the scorer takes one.
void check_scorer(const char* operation, Scorer scorer, int64_t dilation, bool has_gate);

}  // namespace lighthouse::ops
