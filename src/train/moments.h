// The moments of all ranks in one place.
#pragma once

#include "model/named_tensors.h"
#include "parallel/gradient_exchange.h"
#include "train/optimizer.h"

namespace lighthouse {

/// Room in host memory for the state() of an optimizer that owned all of `parameters`. Its "step" is the live one.
NamedTensors whole_moments(const NamedTensors& parameters, const AdamW& optimizer);

/// What each rank's optimizer knows of the pieces that it owns, copied into `whole`, which is empty on ranks that do
/// not want it. All ranks of the exchange call it.
void gather_moments(const GradientExchange& exchange, const AdamW& optimizer, const NamedTensors& whole);

}  // namespace lighthouse
