#include "audit/audit.h"

#include <ATen/ops/ones.h>

#include <algorithm>
#include <functional>
#include <sstream>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "lighthouse/geometry.h"

namespace lighthouse {
namespace {

using Visit = std::function<void(const Sequence& sequence, int64_t index, int64_t token, const Outputs& before,
                                 const Outputs& after)>;

/// Runs every sequence as it is and with every change of it.
void for_each_change(const RunnerFor& run_for, std::span<const Sequence> sequences, Change change,
                     const AuditOptions& options, const Visit& visit) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = sequences[i];
    const auto index = static_cast<int64_t>(i);
    const auto seq_len = static_cast<int64_t>(sequence.inputs.size());
    const Runner run = run_for(sequence);
    const Outputs before = run(sequence);
    for (const int64_t token : changed_tokens(seq_len, options.changes_per_sequence, options.seed, index)) {
      visit(sequence, index, token, before,
            run(changed(sequence, sequences[(i + 1) % sequences.size()], token, change)));
    }
  }
}

/// k of every Lighthouse layer.
std::vector<int64_t> topk_of_layers(const Decoder& decoder) {
  std::vector<int64_t> topk;
  for (int64_t layer = 0; layer < decoder.config().num_layers; ++layer) {
    if (const auto k = lighthouse_topk(decoder.attention(), layer)) topk.push_back(*k);
  }
  LIGHTHOUSE_CHECK(decoder.attention().method == AttentionMethod::kLighthouse, "audit: attention.method = \"",
                   decoder.attention().method,
                   "\" selects nothing that could look ahead; what is audited is Lighthouse attention");
  LIGHTHOUSE_CHECK(!topk.empty(), "audit: attention.full_attention_layers and attention.window_layers name all ",
                   decoder.config().num_layers, " layers, so nothing is selected; leave a layer out of them");
  return topk;
}

SelectionConfig selection_config(const AttentionConfig& attention, int64_t topk) {
  return {attention.num_levels, attention.pooling_factor, topk, attention.tile_topk, attention.cover_prefix};
}

void check_sequences(const Decoder& decoder, std::span<const Sequence> sequences, const AuditOptions& options) {
  LIGHTHOUSE_CHECK(options.changes_per_sequence >= 1, "audit: ", options.changes_per_sequence,
                   " changes a sequence; must be at least 1");
  LIGHTHOUSE_CHECK(
      sequences.size() >= 2, "audit: the text has ", sequences.size(),
      " sequence(s) of this length, and one is changed to tokens of another; give at least 2, by more text "
      "or a smaller seq_len");
  const auto seq_len = static_cast<int64_t>(sequences.front().inputs.size());
  const std::vector<int64_t> topk = topk_of_layers(decoder);
  const int64_t smallest = *std::min_element(topk.begin(), topk.end());
  const int64_t rows = gathered_length(seq_len, selection_config(decoder.attention(), smallest));
  LIGHTHOUSE_CHECK(rows < seq_len, "audit: ", seq_len, " tokens gather ", rows,
                   " rows with attention.topk = ", smallest,
                   ", so every token is kept and nothing is selected; take a longer seq_len or a smaller "
                   "attention.topk");
}

Moves moves_when_replayed(const Decoder& decoder, std::span<const Sequence> sequences) {
  MoveCounter counter;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = sequences[i];
    const Outputs plain = free_selection(decoder)(sequence)(sequence);
    const Outputs replayed = held_selection(decoder)(sequence)(sequence);
    counter.add(plain, replayed, at::ones({plain.losses.size(0)}, at::kBool), static_cast<int64_t>(i), 0);
  }
  return counter.total();
}

FreeAudit audit_free(const Decoder& of_run, int64_t tile_topk, std::span<const Sequence> sequences,
                     const AuditOptions& options) {
  AttentionConfig attention = of_run.attention();
  attention.tile_topk = tile_topk;
  const Decoder decoder = of_run.with_attention(attention);
  const std::vector<int64_t> topk = topk_of_layers(decoder);
  const auto seq_len = static_cast<int64_t>(sequences.front().inputs.size());
  const SequencePlan plan =
      make_plan(selection_config(attention, *std::min_element(topk.begin(), topk.end())), seq_len);
  FreeAudit result{tile_topk, static_cast<int64_t>(plan.tiles.size()), 0, {}, {}, {}};
  for (const Tile& tile : plan.tiles) result.tile_tokens = std::max(result.tile_tokens, tile.shape.num_coarse);
  const Pyramid& pyramid = plan.documents.front().pyramid;
  result.tile_tokens = std::min(result.tile_tokens * pyramid.window(pyramid.num_levels - 1), seq_len);
  const RunnerFor run_for = free_selection(decoder);
  result.one_token = measure_moves(run_for, sequences, Change::kOneToken, options);
  if (!options.loss) return result;
  MoveCounter counter;
  LookaheadMeter meter;
  for_each_change(
      run_for, sequences, Change::kAllLater, options,
      [&](const Sequence& sequence, int64_t index, int64_t token, const Outputs& before, const Outputs& after) {
        counter.add(before, after, unseen_outputs(sequence, token, Change::kAllLater), index, token);
        meter.add(sequence, index, token, before.losses, after.losses);
      });
  result.all_later = counter.total();
  result.lookahead = meter.result();
  return result;
}

std::string moved_text(const Moves& moves) {
  std::ostringstream text;
  text << moves.num_moved << " of " << moves.num_outputs << " outputs moved, by " << moves.max_delta << " at most ("
       << to_string(moves.worst) << ")";
  return text.str();
}

}  // namespace

std::vector<int64_t> default_tile_topk(const Decoder& decoder) {
  constexpr int64_t kSmallest = 32;
  const std::vector<int64_t> topk = topk_of_layers(decoder);
  const int64_t largest = *std::max_element(topk.begin(), topk.end());
  std::vector<int64_t> sizes{largest, std::min(decoder.attention().tile_topk, largest)};
  for (int64_t size = kSmallest; size < largest; size *= 2) sizes.push_back(size);
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

Moves measure_moves(const RunnerFor& run_for, std::span<const Sequence> sequences, Change change,
                    const AuditOptions& options) {
  MoveCounter counter;
  for_each_change(
      run_for, sequences, change, options,
      [&](const Sequence& sequence, int64_t index, int64_t token, const Outputs& before, const Outputs& after) {
        counter.add(before, after, unseen_outputs(sequence, token, change), index, token);
      });
  return counter.total();
}

Audit audit(const Decoder& decoder, std::span<const Sequence> sequences, const AuditOptions& options) {
  check_sequences(decoder, sequences, options);
  Audit result;
  const RunnerFor held = held_selection(decoder);
  result.held.replayed = moves_when_replayed(decoder, sequences);
  result.held.one_token = measure_moves(held, sequences, Change::kOneToken, options);
  result.held.all_later = measure_moves(held, sequences, Change::kAllLater, options);
  result.held.dense =
      measure_moves(free_selection(decoder, AttentionMode::kDense), sequences, Change::kAllLater, options);
  std::vector<int64_t> sizes = options.tile_topk.empty() ? default_tile_topk(decoder) : options.tile_topk;
  std::sort(sizes.begin(), sizes.end());
  for (const int64_t size : sizes) result.free.push_back(audit_free(decoder, size, sequences, options));
  return result;
}

std::optional<std::string> violation(const HeldAudit& held) {
  if (held.replayed.num_moved > 0) {
    return "a pass that is held to its own selection does not repeat the bits of the plain pass: " +
           moved_text(held.replayed) + "; without that nothing can be said of changes";
  }
  const Moves& worst = held.one_token.num_moved > 0 ? held.one_token : held.all_later;
  if (worst.num_moved == 0) return std::nullopt;
  const std::string dense = held.dense.num_moved > 0 ? "dense attention does not hold them either: stock attention on "
                                                       "this device is at fault"
                                                     : "dense attention holds them";
  return "with the selection held, outputs saw later tokens: " + moved_text(worst) + "; " + dense;
}

}  // namespace lighthouse
