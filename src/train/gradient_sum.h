// Gradients of several micro-batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "config/choices.h"
#include "model/named_tensors.h"

namespace lighthouse {

/// `backward(i)` adds the gradient of micro-batch i to those of the parameters, which have none before. Afterwards they
/// hold the sum over i < count, contiguous. `complete(p)` is called once for each parameter p that has a gradient, as
/// soon as that is its sum: within the last backward pass, on autograd's thread, when all that adds to it has run.
void sum_gradients(const NamedTensors& parameters, int64_t count, Accumulation accumulation,
                   const std::function<void(int64_t)>& backward, const std::function<void(size_t)>& complete = {});

}  // namespace lighthouse
