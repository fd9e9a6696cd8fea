#include "eval/validation.h"

#include "eval/sample.h"
#include "eval/sequence_losses.h"

namespace lighthouse {

ValidationLoss validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                               AttentionMode mode) {
  return loss_of(validation_parts(decoder, loader, validation_sample(loader, num_sequences, kSampleSeed), mode));
}

std::vector<PartialSum> validation_parts(const Decoder& decoder, const SequenceLoader& loader,
                                         std::span<const int64_t> sequences, AttentionMode mode) {
  std::vector<PartialSum> parts;
  for (const int64_t index : sequences) parts.push_back(sequence_losses(decoder, loader, index, mode).all());
  return parts;
}

ValidationLoss loss_of(std::span<const PartialSum> parts) {
  const Mean mean = mean_of(parts);
  return {mean.count == 0 ? 0 : mean.value, static_cast<int64_t>(parts.size()), mean.count};
}

}  // namespace lighthouse
