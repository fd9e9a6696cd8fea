// Which tokens the audit changes, and which outputs must not see it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/sequence_loader.h"

namespace lighthouse {

enum class Change {
  kOneToken,  ///< a token becomes another one
  kAllLater,  ///< it and all tokens after it become those of another sequence
};

/// One token of each of `count` equal parts of [1, seq_len), increasing; from (seed, sequence) alone.
std::vector<int64_t> changed_tokens(int64_t seq_len, int64_t count, uint64_t seed, int64_t sequence);

/// `sequence` with tokens from `token` on changed, its targets and documents as they were. New tokens come from
/// `donor`, text as well, of the same length: for kOneToken the first from `token` on, cyclically, that is another one.
/// Throws InvalidArgument when all of donor is that one token.
Sequence changed(const Sequence& sequence, const Sequence& donor, int64_t token, Change change);

/// The document that holds a token: [begin, end), the whole sequence where it is not packed.
struct DocumentRange {
  int64_t begin, end;
};
DocumentRange document_of(const Sequence& sequence, int64_t token);

/// bool [N] on the CPU: the outputs before `token`, and those of later documents where one token was changed.
at::Tensor unseen_outputs(const Sequence& sequence, int64_t token, Change change);

}  // namespace lighthouse
