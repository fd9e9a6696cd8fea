#include "data/token_source.h"

#include <algorithm>

#include "lighthouse/check.h"

namespace lighthouse {

void read_checked(const TokenSource& source, int64_t begin, int64_t vocab_size, std::span<int64_t> tokens) {
  source.read(begin, tokens);
  const auto wrong =
      std::find_if(tokens.begin(), tokens.end(), [&](int64_t token) { return token < 0 || token >= vocab_size; });
  LIGHTHOUSE_CHECK(wrong == tokens.end(), "data: token ", *wrong, " at ",
                   source.describe(begin + (wrong - tokens.begin())), " is not in [0, model.vocab_size = ", vocab_size,
                   "); give the model the corpus's vocabulary");
}

}  // namespace lighthouse
