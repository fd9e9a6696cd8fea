// Stock attention of queries to a block of keys, with its log-sum-exp: what attention in parts is made of. Given the
// output and the log-sum-exp of all keys, the stock backward of a block makes its part of the gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/gathering.h"

namespace lighthouse::ops {

/// Keys and values that queries see alike: all, or causally. By cuDNN on CUDA, by FlashAttention on the CPU, where
/// H_kv = H.
struct KeyBlock {
  /// Keys `begin` to begin + size of k and v [B, H_kv, m, D].
  KeyBlock(const at::Tensor& all_keys, const at::Tensor& all_values, int64_t begin, int64_t size, bool is_causal);

  /// Whether PyTorch would choose cuDNN.
  bool goes_to_cudnn(const at::Tensor& q, double scale) const;

  /// The output [B, H, n, D], and the logarithms of sums of exponentials: [B, H, n] on the CPU, [B, H, n, 1] of cuDNN.
  TwoTensors attend(const at::Tensor& q, double scale) const;

  /// (dq, dk, dv) through these keys, for the output and log-sum-exp of all.
  ThreeTensors gradients(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& out,
                         const at::Tensor& logsumexp, double scale) const;

  at::Tensor k, v;
  bool causal;
};

/// The output, in the type of q, and the log-sum-exp of q over the keys of both, given those over either:
///   L = log(exp(L_1) + exp(L_2)),   O = exp(L_1 - L) O_1 + exp(L_2 - L) O_2,
/// in fp32 (fp64 for fp64).
TwoTensors merge(const TwoTensors& one, const TwoTensors& other);

}  // namespace lighthouse::ops
