// The training loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lighthouse {

inline constexpr int64_t kNoTarget = -100;  ///< a target that does not count

/// Mean over the targets that count of logsumexp(logits) - logits[target], in nats; 0 when none counts. logits
/// [.., vocab] fp32, targets [..] int64. No copy from the device to the host.
///
/// Holds logits and their softmax, 8 bytes for every token and word. A vocabulary for which that is too much needs
/// the head inside: chunks of tokens whose logits are made again in the backward pass.
at::Tensor mean_cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace lighthouse
