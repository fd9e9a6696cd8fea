#include "data/token_source.h"

#include <algorithm>

#include "io/checksum.h"
#include "lighthouse/check.h"

namespace lighthouse {

std::string content_checksum(const TokenSource& source) {
  constexpr int64_t kStretches = 256;
  constexpr int64_t kTokens = 4096;
  const int64_t num_tokens = source.num_tokens();
  const bool whole = num_tokens <= kStretches * kTokens;
  std::vector<int64_t> tokens(static_cast<size_t>(kTokens));
  Checksum checksum;
  for (int64_t stretch = 0; stretch < kStretches; ++stretch) {
    // The last begins num_tokens - kTokens: 255ths of that, without overflow.
    const int64_t room = num_tokens - kTokens;
    const int64_t begin =
        whole ? stretch * kTokens
              : room / (kStretches - 1) * stretch + room % (kStretches - 1) * stretch / (kStretches - 1);
    if (begin >= num_tokens) break;
    const auto part = std::span(tokens).first(static_cast<size_t>(std::min(kTokens, num_tokens - begin)));
    source.read(begin, part);
    checksum.update(std::as_bytes(part));
  }
  return checksum.hex();
}

void read_checked(const TokenSource& source, int64_t begin, int64_t vocab_size, std::span<int64_t> tokens) {
  source.read(begin, tokens);
  const auto wrong =
      std::find_if(tokens.begin(), tokens.end(), [&](int64_t token) { return token < 0 || token >= vocab_size; });
  LIGHTHOUSE_CHECK(wrong == tokens.end(), "data: token ", *wrong, " at ",
                   source.describe(begin + (wrong - tokens.begin())), " is not in [0, model.vocab_size = ", vocab_size,
                   "); give the model the corpus's vocabulary");
}

}  // namespace lighthouse
