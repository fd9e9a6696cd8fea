// Cross entropy and its gradient in the memory of the logits. No autograd: for use inside autograd functions.
//
// Logits [.., V] are fp32, fp64 or bf16, contiguous; targets int64, as many as rows; A is fp32, or fp64 for fp64
// logits. A row whose target is kIgnoredTarget does not count: its loss and its gradient are 0, whatever it holds. A
// row with a NaN, or with any other target outside [0, V), has a loss and a gradient of NaN. Nothing waits for the
// device. The kernels on CUDA take V % 8 == 0; all else runs the operators of ATen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lighthouse {

inline constexpr int64_t kIgnoredTarget = -100;

/// logsumexp(logits) - logits[target] in nats, [rows] A.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

/// The same; on return logits hold (softmax(logits) - onehot(target)) * scale, rounded once. `scale` has one element,
/// fp32 or fp64, on the device of logits.
at::Tensor cross_entropy_(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& scale);

}  // namespace lighthouse
