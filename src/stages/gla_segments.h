// How the CUDA scorer `gla` cuts a row into pieces that blocks work on: the tokens of a residue class of a document are
// a chain, and a segment is `segment_len` successive tokens of one chain.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lighthouse/geometry.h"

namespace lighthouse {

/// One segment: tokens first_token, first_token + dilation, ...
struct GlaSegment {
  int64_t first_token;
  int32_t num_tokens;  ///< 0: the item stands for no segment
  int32_t index;       ///< within its chain
  bool last;           ///< of its chain: nothing needs the state after it
  int64_t state_out;   ///< where the state after it is kept, unless it is the last
  int64_t state_in;    ///< where the state before it is kept, unless its index is 0
};

/// Items number the segments and states number the boundaries between neighbours of one chain. Both are found from
/// `bounds` alone: a document gets ceil(length / span) or a few more items per residue class, at least one, and as many
/// states as its first and last token are multiples of `span` apart, which is at least one less than its segments.
struct GlaSegments {
  const int32_t* bounds;  ///< token offsets [num_documents + 1], from 0 to seq_len; null: one document
  int32_t num_documents;
  int64_t seq_len;
  int64_t dilation;     ///< at most seq_len
  int64_t segment_len;  ///< tokens of a chain

  LIGHTHOUSE_HOST_DEVICE constexpr int64_t span() const { return dilation * segment_len; }  // tokens of the row
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t bound(int64_t document) const {
    return bounds == nullptr ? document * seq_len : bounds[document];
  }
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t first_item(int64_t document) const {
    return dilation * (bound(document) / span() + document);
  }
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t first_state(int64_t document) const {
    return dilation * (bound(document) / span());
  }
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_items() const { return dilation * (seq_len / span() + num_documents); }
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_states() const { return dilation * (seq_len / span()); }

  /// The last document whose first_item or first_state is at most `position`.
  template <typename First>
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t find(const First& first, int64_t position) const {
    int64_t low = 0;
    int64_t high = num_documents;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (first(middle) <= position ? low : high) = middle;
    }
    return low;
  }
  /// Tokens of a chain from `token` on.
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t chain_len(int64_t token, int64_t document) const {
    const int64_t end = bound(document + 1);
    return token < end ? ceil_div(end - token, dilation) : 0;
  }

  LIGHTHOUSE_HOST_DEVICE constexpr GlaSegment segment(int64_t item) const {
    const int64_t document = find([this](int64_t d) { return first_item(d); }, item);
    const int64_t local = item - first_item(document);
    const int64_t index = local / dilation;
    const int64_t first_token = bound(document) + local % dilation + index * span();
    const int64_t left = chain_len(first_token, document);
    const int64_t state_out = first_state(document) + local;
    return {first_token,
            static_cast<int32_t>(left < segment_len ? left : segment_len),
            static_cast<int32_t>(index),
            left <= segment_len,
            state_out,
            state_out - dilation};
  }
  /// States of the chain whose first state is `state`, each `dilation` after the one before; 0 if no chain starts
  /// there.
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t chain_states(int64_t state) const {
    const int64_t document = find([this](int64_t d) { return first_state(d); }, state);
    const int64_t residue = state - first_state(document);
    const int64_t tokens = residue < dilation ? chain_len(bound(document) + residue, document) : 0;
    return tokens == 0 ? 0 : (tokens - 1) / segment_len;
  }
};

inline constexpr int64_t kGlaChunk = 64;  // tokens of a chain that the tensor-core kernel handles at once

/// Segments of 4 to 64 chunks: long ones keep the traffic of states small (2 * D * D fp32 for each, written and read
/// twice), short ones make enough blocks. 768 blocks are three waves of two a multiprocessor on 132 of them.
constexpr int64_t gla_segment_len(int64_t batch, int64_t seq_len, int64_t num_heads) {
  const int64_t chunks = 2 * batch * num_heads * seq_len / kGlaChunk;
  return kGlaChunk * std::clamp<int64_t>(chunks / 768, 4, 64);
}

/// 16-byte units of a row-major shared-memory tile, exchanged within a row so that the same unit of eight successive
/// rows lies in eight different groups of banks. units_per_row is a multiple of 8.
LIGHTHOUSE_HOST_DEVICE constexpr int swizzled_unit(int row, int unit, int units_per_row) {
  return row * units_per_row + (unit ^ (row & 7));
}

}  // namespace lighthouse
