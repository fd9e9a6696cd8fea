// A measured report of what is causal in a model with Lighthouse attention, and what is not (docs/causality.md).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/change.h"
#include "audit/lookahead.h"
#include "audit/moves.h"
#include "audit/runner.h"
#include "model/decoder.h"

namespace lighthouse {

struct AuditOptions {
  int64_t changes_per_sequence = 4;
  uint64_t seed = 1;                    ///< of the places that are changed
  std::vector<int64_t> tile_topk = {};  ///< to audit with a free selection; empty: default_tile_topk
  bool loss = false;                    ///< measure Lookahead too
};

/// Earlier outputs when the selection is held: none may move. At the model's own tile_topk.
struct HeldAudit {
  Moves replayed;   ///< nothing is changed: a pass held to its own selection against the plain pass, over all outputs
  Moves one_token;  ///< Change::kOneToken
  Moves all_later;  ///< Change::kAllLater
  Moves dense;      ///< Change::kAllLater with AttentionMode::kDense: what stock attention does on this device
};

/// Earlier outputs when every sequence selects for itself.
struct FreeAudit {
  int64_t tile_topk;
  int64_t num_tiles;    ///< T of a sequence, in the layer with the fewest
  int64_t tile_tokens;  ///< tokens of the largest tile of that layer: how far a layer looks ahead at most
  Moves one_token;      ///< Change::kOneToken
  std::optional<Moves> all_later;
  std::optional<Lookahead> lookahead;  ///< of the same changes
};

struct Audit {
  HeldAudit held;
  std::vector<FreeAudit> free;  ///< by tile_topk, increasing
};

/// 32, 64, ... below the largest k of a layer, that k (one tile), and the model's own tile_topk where that is smaller.
std::vector<int64_t> default_tile_topk(const Decoder& decoder);

/// What changes of each sequence do to outputs that must not see them; sequences[i] is changed to tokens of
/// sequences[i + 1], the last to those of the first.
Moves measure_moves(const RunnerFor& run_for, std::span<const Sequence> sequences, Change change,
                    const AuditOptions& options);

/// Audits a decoder on text of one length. Throws InvalidArgument for fewer than two sequences, for a model all of
/// whose layers are dense, and where the sequences are so short that every layer keeps all tokens.
Audit audit(const Decoder& decoder, std::span<const Sequence> sequences, const AuditOptions& options);

/// What is wrong, in a sentence that says where; nullopt when nothing moved with the selection held.
std::optional<std::string> violation(const HeldAudit& held);

}  // namespace lighthouse
