// Which sequences of a held-out corpus stand for all of it.
#pragma once

#include <cstdint>
#include <vector>

#include "data/sequence_loader.h"

namespace lighthouse {

inline constexpr uint64_t kSampleSeed =
    1;  ///< of training's validation, and of `lighthouse eval` unless told otherwise

/// `wanted` of the indices [0, available), increasing, one drawn by `seed` from each of `wanted` stretches of equal
/// length (to one index); all of them when there are no more. 0 <= available, 1 <= wanted.
std::vector<int64_t> spread_sample(int64_t available, int64_t wanted, uint64_t seed);

/// The same of the loader's validation sequences. Throws InvalidArgument when wanted < 1 or there are none.
std::vector<int64_t> validation_sample(const SequenceLoader& loader, int64_t wanted, uint64_t seed);

}  // namespace lighthouse
