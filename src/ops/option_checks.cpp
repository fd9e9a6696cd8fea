#include "ops/option_checks.h"

#include <c10/util/Exception.h>

#include <cmath>

namespace lighthouse::ops {

void check_softmax_scale(const char* operation, std::optional<double> softmax_scale) {
  TORCH_CHECK_VALUE(!softmax_scale || (std::isfinite(*softmax_scale) && *softmax_scale > 0), operation,
                    ": softmax_scale is ", softmax_scale.value_or(0),
                    "; it must be positive and finite, or left out for 1 / sqrt(head_dim)");
}

void check_scorer(const char* operation, Scorer scorer, int64_t dilation, bool has_gate) {
  TORCH_CHECK_VALUE(scorer != Scorer::kRandom, operation, ": scorer is '", scorer,
                    "'; it must be norm, dilated or gla");
  TORCH_CHECK_VALUE(dilation >= 1, operation, ": dilation is ", dilation, "; it must be at least 1");
  const bool needs_gate = scorer == Scorer::kGla;
  TORCH_CHECK_VALUE(has_gate || !needs_gate, operation,
                    ": scorer is 'gla', but no gate is given; pass the log forget gate [batch, seq_len, num_heads]");
  TORCH_CHECK_VALUE(!has_gate || needs_gate, operation, ": a gate is given, but scorer is '", scorer,
                    "'; only scorer 'gla' takes one");
}

}  // namespace lighthouse::ops
