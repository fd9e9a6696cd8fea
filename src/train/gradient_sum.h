// Gradients of several micro-batches.
#pragma once

#include <cstdint>
#include <functional>

#include "model/named_tensors.h"

namespace lighthouse {

/// In what order they are added (training.accumulation).
enum class Accumulation {
  kSequence,  ///< one after another, in one set of gradients
  kTree,      ///< as tree_schedule says, in up to 1 + ceil(log2(count)) sets
};

/// `backward(i)` adds the gradient of micro-batch i to those of the parameters, which have none before. Afterwards they
/// hold the sum over i < count, contiguous.
void sum_gradients(const NamedTensors& parameters, int64_t count, Accumulation accumulation,
                   const std::function<void(int64_t)>& backward);

}  // namespace lighthouse
