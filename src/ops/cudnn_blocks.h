// The backward of causal attention over any number of rows, in blocks that cuDNN's repeatable backward can afford.
//
// With the log-sum-exp L and the output O of all keys at hand, the pairs of (queries i, keys j) are independent:
//   P_ij = exp(scale q_i k_j^T - L_i),   dS_ij = P_ij o (dO_i v_j^T - rowsum(dO_i o O_i)),
//   dq_i = scale sum_j dS_ij k_j,   dk_j = scale sum_i dS_ij^T q_i,   dv_j = sum_i P_ij^T dO_i.
// Rows are cut into blocks; those of keys after the queries add nothing. A call of cudnn_backward does one pair of
// blocks. Sums over blocks are in fp32, always in the same order.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cudnn_attention.h"
#include "ops/gathering.h"

namespace lighthouse::ops {

/// Whether cuDNN has a repeatable backward for every pair of blocks. q [B, H, S, D], k and v [B, H_kv, S, D].
bool blockwise_backward_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                             const CudnnLimits& limits);

/// (dq, dk, dv) in the layouts of q, k and v; arguments as of cudnn_backward. Only where blockwise_backward_runs.
ThreeTensors blockwise_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                                const at::Tensor& logsumexp, const at::Tensor& dout, double softmax_scale,
                                const CudnnLimits& limits);

}  // namespace lighthouse::ops
