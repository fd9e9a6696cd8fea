// Sequences of a corpus as tensors that a decoder takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "data/sequence_loader.h"
#include "parallel/context_plan.h"

namespace lighthouse {

struct Batch {
  at::Tensor tokens, targets;       ///< [B, N] int64
  std::vector<int64_t> cu_seqlens;  ///< offsets of packed documents (then B = 1), else empty
  int64_t num_targets = 0;          ///< targets that count in the loss
  std::vector<Span> spans;          ///< tokens of each rank where ranks share the row, of which these are one's
};

/// At least one sequence, all of one length. Throws InvalidArgument when several sequences hold packed documents.
/// `pinned`: in memory from which a CUDA device copies without waiting.
Batch make_host_batch(std::span<const Sequence> sequences, bool pinned = false);
/// The tokens of rank `rank` of a host batch, where each has spans[rank].
Batch share_of(const Batch& batch, std::vector<Span> spans, int64_t rank);
/// The batch on `device`: copied in the order of the current stream, without waiting where the memory is pinned.
Batch to_device(const Batch& batch, at::Device device);
/// to_device(make_host_batch(sequences), device)
Batch make_batch(std::span<const Sequence> sequences, at::Device device);

}  // namespace lighthouse
