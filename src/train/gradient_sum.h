// Gradients of several micro-batches.
#pragma once

#include <cstdint>
#include <functional>

#include "config/choices.h"
#include "model/named_tensors.h"

namespace lighthouse {

/// `backward(i)` adds the gradient of micro-batch i to those of the parameters, which have none before. Afterwards they
/// hold the sum over i < count, contiguous.
void sum_gradients(const NamedTensors& parameters, int64_t count, Accumulation accumulation,
                   const std::function<void(int64_t)>& backward);

}  // namespace lighthouse
