// How the audit runs a model: one sequence at a time, with its selection free or held.
#pragma once

#include <functional>

#include "audit/moves.h"
#include "data/sequence_loader.h"
#include "model/decoder.h"

namespace lighthouse {

/// The outputs of a sequence.
using Runner = std::function<Outputs(const Sequence& sequence)>;
/// What runs `original` and sequences that were made of it by changing tokens.
using RunnerFor = std::function<Runner(const Sequence& original)>;

/// Every sequence selects for itself; nothing is selected with AttentionMode::kDense. `decoder` must outlive the
/// result.
RunnerFor free_selection(const Decoder& decoder, AttentionMode mode = AttentionMode::kLighthouse);

/// Every sequence is run with the selections that Lighthouse attention makes of `original`.
RunnerFor held_selection(const Decoder& decoder);

}  // namespace lighthouse
