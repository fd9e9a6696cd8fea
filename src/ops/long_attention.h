// Causal attention of rows so many that cuDNN's forward gets slower: in blocks of queries.
//
// A block's queries see all keys before it, and their own causally; the two are merged by their log-sum-exps
// (key_block.h). cuDNN's causal forward of 524,288 rows runs at 0.85 of the speed that it has at 24,576; the same in
// blocks of 65,536 does not lose it. The backward is one stock call: it wants the output and the log-sum-exp of all
// keys, which are the same however they were made.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lighthouse::ops {

/// From so many rows on it is ahead, by 2 % or more of forward and backward (docs/benchmarks.md).
inline constexpr int64_t kLongRows = 262'144;
/// Of a block of queries.
inline constexpr int64_t kBlockRows = 65'536;

/// Whether long_attention takes these where there are more rows than `block_rows`: on the CPU; on CUDA where PyTorch
/// would choose cuDNN.
bool long_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                         int64_t block_rows = kBlockRows);

/// q [B, H, S, D], k and v [B, H_kv, S, D]; on the CPU H_kv = H -> [B, H, S, D], differentiable once.
at::Tensor long_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                          int64_t block_rows = kBlockRows);

}  // namespace lighthouse::ops
