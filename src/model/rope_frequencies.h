// How fast the pairs of channels of a head turn, with every scaling of model.rope_scaling.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "config/run_config.h"

namespace lighthouse {

struct RopeFrequencies {
  at::Tensor inverse;           ///< fp32 [D/2]: radians a position
  double attention_factor = 1;  ///< of cosines and sines
};

/// Those of transformers, in fp32 and in its order of operations: at large positions another rounding of them would
/// show. `longest`: tokens of the longest sequence of the pass, on which those of "dynamic" depend, and no others.
RopeFrequencies rope_frequencies(const ModelConfig& model, int64_t longest, at::Device device);

/// Throws InvalidArgument where keys in a cache would be turned otherwise than those of a sequence of `seq_len` tokens.
void check_cached_rope(const ModelConfig& model, int64_t seq_len);

}  // namespace lighthouse
