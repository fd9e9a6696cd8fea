#include "eval/sample.h"

#include <algorithm>

#include "lighthouse/check.h"
#include "model/random.h"

namespace lighthouse {

std::vector<int64_t> spread_sample(int64_t available, int64_t wanted, uint64_t seed) {
  const int64_t count = std::min(available, wanted);
  const uint64_t stream = random_stream(seed, "sample");
  std::vector<int64_t> indices;
  for (int64_t part = 0; part < count; ++part) {
    // Stretches of `longer` indices come first, the others have one less.
    const int64_t least = available / count;
    const int64_t longer = available % count;
    const int64_t begin = part * least + std::min(part, longer);
    const auto length = static_cast<uint64_t>(least + (part < longer ? 1 : 0));
    indices.push_back(begin + static_cast<int64_t>(random_bits(stream, static_cast<uint64_t>(part)) % length));
  }
  return indices;
}

std::vector<int64_t> validation_sample(const SequenceLoader& loader, int64_t wanted, uint64_t seed) {
  LIGHTHOUSE_CHECK(wanted >= 1, "validation: ", wanted, " sequences; must be at least 1");
  const int64_t available = loader.num_validation_sequences();
  LIGHTHOUSE_CHECK(available >= 1,
                   "validation: the corpus has no validation sequences; set data.validation_fraction or "
                   "data.validation_path");
  return spread_sample(available, wanted, seed);
}

}  // namespace lighthouse
