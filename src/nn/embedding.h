// The gradient of a table of embeddings. No autograd: for use inside autograd functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lighthouse {

/// [vocab, C] fp32 (fp64 for fp64 gradients): row w is the sum of grad over the tokens that are w. tokens [..] int64 in
/// [0, vocab), grad [.., C] fp32, fp64 or bf16. The same bits in every run. On CUDA with a small vocabulary, a NaN or
/// infinity in a channel of one token makes that channel NaN for other words too.
at::Tensor embedding_gradient(const at::Tensor& tokens, const at::Tensor& grad, int64_t vocab);

}  // namespace lighthouse
