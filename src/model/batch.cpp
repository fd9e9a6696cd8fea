#include "model/batch.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "lighthouse/check.h"

namespace lighthouse {

Batch make_host_batch(std::span<const Sequence> sequences, bool pinned) {
  LIGHTHOUSE_CHECK(!sequences.empty(), "make_batch: no sequences");
  LIGHTHOUSE_CHECK(sequences.size() == 1 || sequences.front().cu_seqlens.empty(), "make_batch: ", sequences.size(),
                   " sequences of packed documents; a batch holds one of them");
  const auto seq_len = static_cast<int64_t>(sequences.front().inputs.size());
  Batch batch;
  batch.tokens = at::empty({static_cast<int64_t>(sequences.size()), seq_len},
                           at::TensorOptions().dtype(at::kLong).pinned_memory(pinned));
  batch.targets = at::empty(batch.tokens.sizes(), batch.tokens.options().pinned_memory(pinned));
  auto* tokens = batch.tokens.mutable_data_ptr<int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<int64_t>();
  for (const Sequence& sequence : sequences) {
    LIGHTHOUSE_CHECK(static_cast<int64_t>(sequence.inputs.size()) == seq_len, "make_batch: sequences of ", seq_len,
                     " and ", sequence.inputs.size(), " tokens");
    tokens = std::copy(sequence.inputs.begin(), sequence.inputs.end(), tokens);
    targets = std::copy(sequence.targets.begin(), sequence.targets.end(), targets);
    batch.num_targets += seq_len - std::count(sequence.targets.begin(), sequence.targets.end(), kIgnoredTarget);
  }
  batch.cu_seqlens = sequences.front().cu_seqlens;
  return batch;
}

Batch share_of(const Batch& batch, std::vector<Span> spans, int64_t rank) {
  const Span own = spans[static_cast<size_t>(rank)];
  const auto cut = [&](const at::Tensor& row) {
    const at::Tensor part = at::empty({row.size(0), own.size()}, row.options().pinned_memory(row.is_pinned()));
    return part.copy_(row.slice(1, own.begin, own.end));
  };
  Batch share{cut(batch.tokens), cut(batch.targets), batch.cu_seqlens, 0, std::move(spans)};
  share.num_targets = share.targets.ne(kIgnoredTarget).sum().item<int64_t>();
  return share;
}

Batch to_device(const Batch& batch, at::Device device) {
  // Pinned memory is not used anew before the copy is done: torch's allocator of it follows such copies.
  return {batch.tokens.to(device, /*non_blocking=*/true), batch.targets.to(device, /*non_blocking=*/true),
          batch.cu_seqlens, batch.num_targets, batch.spans};
}

Batch make_batch(std::span<const Sequence> sequences, at::Device device) {
  return to_device(make_host_batch(sequences), device);
}

}  // namespace lighthouse
