#include "eval/sequence_losses.h"

#include <ATen/core/Tensor.h>

#include "model/batch.h"

namespace lighthouse {
namespace {

std::vector<int64_t> positions_of_targets(const Sequence& sequence) {
  std::vector<int64_t> positions(sequence.targets.size());
  size_t document = 0;
  for (size_t token = 0; token < positions.size(); ++token) {
    const auto& offsets = sequence.cu_seqlens;
    while (!offsets.empty() && static_cast<int64_t>(token) >= offsets[document + 1]) ++document;
    const int64_t begin = offsets.empty() ? 0 : offsets[document];
    positions[token] = sequence.targets[token] == kIgnoredTarget ? -1 : static_cast<int64_t>(token) - begin;
  }
  return positions;
}

}  // namespace

PartialSum SequenceLosses::part(int64_t begin, int64_t end) const {
  PartialSum part;
  for (size_t token = 0; token < nats.size(); ++token) {
    if (positions[token] < begin || positions[token] >= end) continue;
    part.sum += static_cast<double>(nats[token]);
    ++part.count;
  }
  return part;
}

std::vector<float> token_losses(const Decoder& decoder, std::span<const Sequence> sequences, AttentionMode mode) {
  const Batch batch = make_batch(sequences, decoder.device());
  const at::Tensor losses =
      decoder.token_losses(batch.tokens, batch.targets, mode, batch.cu_seqlens).to(at::kCPU, at::kFloat).contiguous();
  const auto* const values = losses.const_data_ptr<float>();
  return {values, values + losses.numel()};
}

SequenceLosses sequence_losses(const Decoder& decoder, const SequenceLoader& loader, int64_t index,
                               AttentionMode mode) {
  const Sequence sequence = loader.validation_sequence(index);
  return {index, token_losses(decoder, {&sequence, 1}, mode), positions_of_targets(sequence)};
}

}  // namespace lighthouse
