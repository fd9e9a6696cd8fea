// The loss on text that was not trained on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/sequence_loader.h"
#include "eval/statistics.h"
#include "model/decoder.h"

namespace lighthouse {

struct ValidationLoss {
  double loss = 0;            ///< mean over all targets, in nats; 0 when none counts
  int64_t num_sequences = 0;  ///< that were read
  int64_t num_targets = 0;
};

/// The mean loss over `num_sequences` validation sequences spread over the held-out text (sample.h, kSampleSeed: the
/// same ones whatever the run's seeds), or all when there are fewer; one at a time, without gradient: the same bits for
/// the same weights and number of threads. A loss that is not finite is returned as it is. Throws InvalidArgument when
/// num_sequences < 1 or the corpus has no validation sequences.
ValidationLoss validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                               AttentionMode mode);

/// The same in two halves: what single validation sequences add, and the mean of all.
std::vector<PartialSum> validation_parts(const Decoder& decoder, const SequenceLoader& loader,
                                         std::span<const int64_t> sequences, AttentionMode mode);
ValidationLoss loss_of(std::span<const PartialSum> parts);

}  // namespace lighthouse
