// Lighthouse attention from stock tensor operators: pooling, look-up, SDPA and repetition, with autograd. It shares no
// code with the kernels, and in double it is what they are compared with; in their own dtype it shows how far stock
// operators err.
#pragma once

#include <ATen/core/Tensor.h>

#include "lighthouse/geometry.h"

namespace lighthouse::bench {

/// q [B, N, H, D], k and v [B, N, H_kv, D], selection [B, H_kv, S] of one unpacked row -> [B, N, H, D].
at::Tensor composed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& selection, const SelectionConfig& config);

}  // namespace lighthouse::bench
