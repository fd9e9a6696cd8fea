#include "eval/validation.h"

#include "eval/sample.h"
#include "eval/sequence_losses.h"

namespace lighthouse {

ValidationLoss validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                               AttentionMode mode) {
  std::vector<Part> parts;
  for (const int64_t index : validation_sample(loader, num_sequences, kSampleSeed)) {
    parts.push_back(sequence_losses(decoder, loader, index, mode).all());
  }
  const Mean mean = mean_of(parts);
  return {mean.count == 0 ? 0 : mean.value, static_cast<int64_t>(parts.size()), mean.count};
}

}  // namespace lighthouse
