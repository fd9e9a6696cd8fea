#include "eval/batch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "lighthouse/check.h"

namespace lighthouse {

Batch make_batch(std::span<const Sequence> sequences, at::Device device) {
  LIGHTHOUSE_CHECK(!sequences.empty(), "make_batch: no sequences");
  LIGHTHOUSE_CHECK(sequences.size() == 1 || sequences.front().cu_seqlens.empty(), "make_batch: ", sequences.size(),
                   " sequences of packed documents; a batch holds one of them");
  const auto seq_len = static_cast<int64_t>(sequences.front().inputs.size());
  Batch batch;
  batch.tokens = at::empty({static_cast<int64_t>(sequences.size()), seq_len}, at::kLong);
  batch.targets = at::empty_like(batch.tokens);
  auto* tokens = batch.tokens.mutable_data_ptr<int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<int64_t>();
  for (const Sequence& sequence : sequences) {
    LIGHTHOUSE_CHECK(static_cast<int64_t>(sequence.inputs.size()) == seq_len, "make_batch: sequences of ", seq_len,
                     " and ", sequence.inputs.size(), " tokens");
    tokens = std::copy(sequence.inputs.begin(), sequence.inputs.end(), tokens);
    targets = std::copy(sequence.targets.begin(), sequence.targets.end(), targets);
    batch.num_targets += seq_len - std::count(sequence.targets.begin(), sequence.targets.end(), kIgnoredTarget);
  }
  batch.tokens = batch.tokens.to(device);
  batch.targets = batch.targets.to(device);
  batch.cu_seqlens = sequences.front().cu_seqlens;
  return batch;
}

}  // namespace lighthouse
