// The decoder's end: final norm, output head and loss, never all logits at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/residual.h"

namespace lighthouse {

inline constexpr int64_t kLogitBytes = int64_t{1} << 30;  ///< the most that the logits of one chunk of tokens take

/// Mean over the targets [B, N] that count of the cross entropy of head(RMSNorm(in.x + in.update)), in nats; 0 when
/// none counts. 0-dim fp32, or fp64 for fp64. `norm` [dim] and `head` [vocab, dim] are parameters, `compute_head` is
/// head in the dtype of in. No copy from the device to the host.
///
/// Goes through the tokens in chunks whose logits take at most logit_bytes (one token at least); where gradients are
/// wanted they are made from the logits at once, in their memory, and only scaled in the backward pass.
at::Tensor head_loss(const Residual& in, const at::Tensor& norm, double eps, const at::Tensor& head,
                     const at::Tensor& compute_head, const at::Tensor& targets, int64_t logit_bytes = kLogitBytes);

/// The terms of that mean without gradient: [B, N], 0 where a target does not count.
at::Tensor head_token_losses(const Residual& in, const at::Tensor& norm, double eps, const at::Tensor& compute_head,
                             const at::Tensor& targets, int64_t logit_bytes = kLogitBytes);
/// The same of what is normed already, [B, N, dim] in the dtype of compute_head.
at::Tensor head_losses_of(const at::Tensor& normed, const at::Tensor& compute_head, const at::Tensor& targets,
                          int64_t logit_bytes = kLogitBytes);

}  // namespace lighthouse
