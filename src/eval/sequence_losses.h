// The losses of a held-out sequence, token by token.
#pragma once

#include <cstdint>
#include <vector>

#include "data/sequence_loader.h"
#include "eval/statistics.h"
#include "model/decoder.h"

namespace lighthouse {

/// Of one sequence of N tokens.
struct SequenceLosses {
  int64_t index = 0;               ///< of the validation sequence
  std::vector<float> nats;         ///< [N] of each token's target; 0 where it does not count
  std::vector<int64_t> positions;  ///< [N] of the token in its document; -1 where its target does not count

  /// Of the targets of tokens at positions [begin, end).
  PartialSum part(int64_t begin, int64_t end) const;
  PartialSum all() const { return part(0, static_cast<int64_t>(nats.size())); }
};

/// Validation sequence `index` read and measured, without gradient: the same bits for the same weights and number of
/// threads. Losses that are not finite are returned as they are.
SequenceLosses sequence_losses(const Decoder& decoder, const SequenceLoader& loader, int64_t index, AttentionMode mode);

/// Losses [B N] of a batch of sequences of equal length, one after another.
std::vector<float> token_losses(const Decoder& decoder, std::span<const Sequence> sequences, AttentionMode mode);

}  // namespace lighthouse
