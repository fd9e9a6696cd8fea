// Sliding-window attention: a control in place of Lighthouse attention (attention.method = AttentionMethod::kWindow).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lighthouse::ops {

/// Causal attention to the token itself and the span - 1 before it, of q [B, N, H, D], k and v [B, N, H_kv, D] ->
/// [B, N, H, D], with softmax scale D^-1/2 and autograd. `cu_seqlens`: none, or offsets of documents (then B = 1),
/// which no window leaves. Throws InvalidArgument for a span below 1.
///
/// CUDA, 16-bit types and D a multiple of 8 up to 256: FlashAttention-2. Else stock attention under a mask, by blocks
/// of as many queries as a window has tokens (256 at least) with the keys that they see. Time goes with N * span,
/// memory with N. `deterministic`: repeats its bits on CUDA.
at::Tensor window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t span,
                            at::OptionalIntArrayRef cu_seqlens, bool deterministic);

}  // namespace lighthouse::ops
