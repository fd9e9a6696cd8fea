// Attention of the last rows of a document whose first rows are attended with elsewhere.
//
// Of n queries and m keys, the m - n keys before are seen by all queries, the others causally: two blocks of keys,
// whose outputs are merged (key_block.h).
#pragma once

#include <ATen/core/Tensor.h>

namespace lighthouse::ops {

/// Whether merged_attention takes these: on the CPU; on CUDA where PyTorch would choose cuDNN for either part.
bool merged_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale);

/// q [B, H, n, D], k and v [B, H_kv, m, D] with 1 <= n < m; on the CPU H_kv = H -> [B, H, n, D], differentiable once.
/// Only where merged_attention_runs. Two calls give the same bits on the CPU; cuDNN's backward here does not.
at::Tensor merged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale);

}  // namespace lighthouse::ops
