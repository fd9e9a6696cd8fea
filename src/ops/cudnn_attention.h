// Causal attention on CUDA by cuDNN, whose backward repeats its bits.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include "ops/cudnn_limits.h"

namespace lighthouse::ops {

/// Whether cudnn_attention takes these: q [B, H, S, D], k and v [B, H_kv, S, D]. The rule:
///   bf16 or fp16; D a multiple of 8, at most 128; S >= 2; channels contiguous, no broadcast dimension, every row at a
///   multiple of 16 bytes; a device of compute capability 9.x or 10.x; cuDNN 9.18 or newer, not switched off in torch
///   (enable_cudnn_sdp); the build found the headers of cudnn-frontend; and cuDNN has a repeatable backward for these
///   sizes, which it is asked.
/// The answer follows from sizes, strides, types and the device alone, and holds for forward and backward. The first
/// call for new ones builds the plans of the backward, one to four, each of which takes tens of milliseconds.
C10_EXPORT bool cudnn_attention_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     double softmax_scale, const CudnnLimits& limits = {});

/// Causal attention [B, H, S, D], differentiable once; only where cudnn_attention_runs. Forward is ATen's call of
/// cuDNN. Two calls give the same bits in output and gradients; how the heads are sliced does not change them, how the
/// rows are cut does.
C10_EXPORT at::Tensor cudnn_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      double softmax_scale, const CudnnLimits& limits = {});

}  // namespace lighthouse::ops
