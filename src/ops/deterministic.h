// PyTorch's deterministic mode for one attention and its backward.
#pragma once

#include <ATen/core/Tensor.h>

#include "lighthouse/ops.h"

namespace lighthouse::ops {

/// attention(q, k, v) with the global deterministic mode on while it runs and while its backward runs, whatever the
/// mode around them. `attention` is not called in backward and need not outlive the call.
at::Tensor run_deterministic(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v);

}  // namespace lighthouse::ops
