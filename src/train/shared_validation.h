// Validation by all ranks of a run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "data/sequence_loader.h"
#include "model/decoder.h"
#include "parallel/mesh.h"

namespace lighthouse {

struct ValidationLosses {
  int stop_signal = 0;                           ///< not 0: a rank had received it before the end, the rest is empty
  double all = 0;                                ///< validation_loss (eval/validation.h)
  std::vector<std::optional<double>> by_source;  ///< [sources] of the sequences of each; of some there may be none
};

/// Every group of ranks that shares sequences reads its part: the same values on all ranks, for any number of groups.
/// All ranks call it. After every sequence `received` is told how many all ranks have read, and asked for the signal
/// that this rank has received, 0 for none; one ends the validation of all.
ValidationLosses shared_validation_losses(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                                          AttentionMode mode, const Mesh& mesh,
                                          const std::function<int(int64_t read)>& received);

}  // namespace lighthouse
