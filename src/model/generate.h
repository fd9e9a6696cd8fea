// Text generation: dense attention with a KV cache, greedy or sampled.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/decoder.h"

namespace lighthouse {

struct GenerateOptions {
  int64_t max_tokens = 256;  ///< how many tokens to generate, >= 0
  bool greedy = false;       ///< always the likeliest token (the lowest on ties); the rest is then not used
  double temperature = 1.0;  ///< > 0; divides the logits
  double top_p = 1.0;        ///< in (0, 1]: sample from the fewest likeliest tokens that have this much probability
  uint64_t seed = 1;         ///< of the sampling
};

/// Called with every token as soon as it is known; false ends the generation.
using OnToken = std::function<bool(int64_t token)>;

/// The tokens that follow `prompt`, at most max_tokens. A function of its arguments: the same seed gives the same
/// tokens. Throws InvalidArgument for an empty prompt, a token outside the vocabulary or an option out of range;
/// std::runtime_error when the model's logits are not finite.
std::vector<int64_t> generate(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                              const OnToken& on_token = {});

}  // namespace lighthouse
