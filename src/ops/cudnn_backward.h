// One call of cuDNN's repeatable backward of attention, on cudnn-frontend. Its headers are heavy: only
// cudnn_backward.cpp sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cudnn_attention.h"
#include "ops/gathering.h"

namespace lighthouse::ops {

/// What one call is told besides its tensors.
struct CudnnCall {
  double softmax_scale;
  bool causal;          ///< query i sees keys 0 to i, as many as queries; else every query sees every key
  int64_t slice_bytes;  ///< CudnnLimits
};

/// Whether cuDNN has a repeatable backward for these sizes and strides: q [B, H, S, D], k and v [B, H_kv, T, D].
/// Without cudnn-frontend: no. cudnn_attention_runs has checked the rest of its rule.
bool cudnn_backward_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CudnnCall& call);

/// (dq, dk, dv), those through these keys, on the current stream; only where cudnn_backward_runs. Where q, k and v fill
/// their memory the results lie as they do, else they are contiguous.
///   o, dout    [B, H, S, D], the output and its gradient, of all keys; any strides, copied where they are not those of
///   q logsumexp  fp32, B * H * S elements in that order: natural logarithms of the sums of exp(softmax_scale * q k^T)
///              over all keys
/// Plans are kept for the 16 latest combinations of sizes, strides and call; a call that finds its plan can be captured
/// in a CUDA graph, and a captured plan is kept for good. Memory comes from the caching allocator. Any thread may call.
ThreeTensors cudnn_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                            const at::Tensor& logsumexp, const at::Tensor& dout, const CudnnCall& call);

}  // namespace lighthouse::ops
