#include "model/random.h"

#define XXH_INLINE_ALL  // header only: nothing to link
#include <xxhash.h>

namespace lighthouse {

uint64_t random_stream(uint64_t seed, std::string_view name) {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed);
}

}  // namespace lighthouse
