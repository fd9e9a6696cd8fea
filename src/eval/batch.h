// Sequences of a corpus as tensors that a decoder takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "data/sequence_loader.h"

namespace lighthouse {

struct Batch {
  at::Tensor tokens, targets;       ///< [B, N] int64
  std::vector<int64_t> cu_seqlens;  ///< offsets of packed documents (then B = 1), else empty
  int64_t num_targets = 0;          ///< targets that count in the loss
};

/// At least one sequence, all of one length. Throws InvalidArgument when several sequences hold packed documents.
Batch make_batch(std::span<const Sequence> sequences, at::Device device);

}  // namespace lighthouse
