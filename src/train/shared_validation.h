// Validation by all ranks of a run.
#pragma once

#include <cstdint>

#include "data/sequence_loader.h"
#include "model/decoder.h"
#include "parallel/mesh.h"

namespace lighthouse {

/// validation_loss (eval/validation.h), of which every group of ranks that shares sequences reads its part: the same
/// value on all ranks, for any number of groups. All ranks call it.
double shared_validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                              AttentionMode mode, const Mesh& mesh);

}  // namespace lighthouse
