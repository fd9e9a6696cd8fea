#include "audit/change.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>

#include "lighthouse/check.h"
#include "lighthouse/geometry.h"
#include "model/random.h"

namespace lighthouse {

std::vector<int64_t> changed_tokens(int64_t seq_len, int64_t count, uint64_t seed, int64_t sequence) {
  const uint64_t stream = random_stream(seed, "audit." + std::to_string(sequence));
  std::vector<int64_t> tokens;
  for (int64_t part = 0; part < count; ++part) {
    const int64_t begin = 1 + split_begin(seq_len - 1, count, part);
    const int64_t end = 1 + split_begin(seq_len - 1, count, part + 1);
    const double place = random_uniform(stream, static_cast<uint64_t>(part));
    if (begin < end) tokens.push_back(begin + static_cast<int64_t>(place * static_cast<double>(end - begin)));
  }
  return tokens;
}

Sequence changed(const Sequence& sequence, const Sequence& donor, int64_t token, Change change) {
  Sequence result = sequence;
  const auto place = result.inputs.begin() + token;
  if (change == Change::kAllLater) {
    std::copy(donor.inputs.begin() + token, donor.inputs.end(), place);
    return result;
  }
  const auto is_other = [&](int64_t other) { return other != *place; };
  auto found = std::find_if(donor.inputs.begin() + token, donor.inputs.end(), is_other);
  if (found == donor.inputs.end()) found = std::find_if(donor.inputs.begin(), donor.inputs.end(), is_other);
  LIGHTHOUSE_CHECK(found != donor.inputs.end(), "audit: a sequence of the text is token ", *place,
                   " throughout, so nothing can be changed to it; give other text");
  *place = *found;
  return result;
}

DocumentRange document_of(const Sequence& sequence, int64_t token) {
  if (sequence.cu_seqlens.empty()) return {0, static_cast<int64_t>(sequence.inputs.size())};
  const auto end = std::upper_bound(sequence.cu_seqlens.begin(), sequence.cu_seqlens.end(), token);
  return {*std::prev(end), *end};
}

at::Tensor unseen_outputs(const Sequence& sequence, int64_t token, Change change) {
  const auto seq_len = static_cast<int64_t>(sequence.inputs.size());
  const at::Tensor unseen = at::zeros({seq_len}, at::kBool);
  unseen.slice(0, 0, token).fill_(true);
  if (change == Change::kOneToken) unseen.slice(0, document_of(sequence, token).end, seq_len).fill_(true);
  return unseen;
}

}  // namespace lighthouse
