// The backward of cudnn_attention, on cudnn-frontend. Its headers are heavy: only cudnn_backward.cpp sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cudnn_attention.h"
#include "ops/internal.h"

namespace lighthouse::ops {

/// Whether cuDNN has a repeatable backward for these sizes and strides within the limits. Without cudnn-frontend: no.
/// cudnn_attention_runs has checked the rest of its rule.
bool cudnn_backward_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                         const CudnnLimits& limits);

/// (dq, dk, dv) in the layouts of q, k and v, on the current stream; only where cudnn_backward_runs.
///   o          [B, H, S, D], the output
///   logsumexp  fp32, B * H * S elements in that order: natural logarithms of the sums of exp(softmax_scale * q k^T)
///   dout       [B, H, S, D], any strides; copied where they differ from those of q
/// Plans are kept for the 16 latest combinations of sizes, strides, scale and limits; a call that finds its plan can be
/// captured in a CUDA graph, and a captured plan is kept for good. Memory comes from the caching allocator. Any thread
/// may call.
ThreeTensors cudnn_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                            const at::Tensor& logsumexp, const at::Tensor& dout, double softmax_scale,
                            const CudnnLimits& limits);

}  // namespace lighthouse::ops
