#include "lighthouse/geometry.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

void check_cu_seqlens(std::span<const int64_t> cu_seqlens, int64_t seq_len, const char* operation) {
  LIGHTHOUSE_CHECK(cu_seqlens.size() >= 2, operation, ": cu_seqlens has ", cu_seqlens.size(),
                   " elements; it needs the start of every document and the end of the last, at least 2");
  LIGHTHOUSE_CHECK(cu_seqlens.front() == 0, operation, ": cu_seqlens starts at ", cu_seqlens.front(),
                   "; it must start at 0");
  for (size_t doc = 1; doc < cu_seqlens.size(); ++doc) {
    LIGHTHOUSE_CHECK(cu_seqlens[doc] >= cu_seqlens[doc - 1], operation, ": cu_seqlens decreases from ",
                     cu_seqlens[doc - 1], " to ", cu_seqlens[doc], " at position ", doc,
                     "; offsets must never decrease");
  }
  LIGHTHOUSE_CHECK(cu_seqlens.back() == seq_len, operation, ": cu_seqlens ends at ", cu_seqlens.back(),
                   ", but the row has ", seq_len, " tokens; the last offset must be the length of the row");
}

/// The tiles of a document; row_begin counts from its first row on.
std::vector<Tile> tiles_of(const Pyramid& pyramid, int32_t document, int64_t num_tiles, int64_t topk) {
  std::vector<Tile> tiles;
  int64_t row_begin = 0;
  for (int64_t filled = 0; filled < num_filled_tiles(pyramid.num_coarse(), num_tiles); ++filled) {
    const TileShape shape = tile_shape(pyramid.num_coarse(), num_tiles, topk, filled);
    tiles.push_back({document, shape, row_begin, tile_rows(shape, pyramid.num_levels, pyramid.log2_pool)});
    row_begin += tiles.back().num_rows;
  }
  return tiles;
}

int64_t rows_of(const std::vector<Tile>& tiles) {
  return tiles.empty() ? 0 : tiles.back().row_begin + tiles.back().num_rows;
}

/// Flat entries of a document, gathered from or not.
int64_t entries_of_all_levels(const SelectionConfig& config, int64_t seq_len) {
  const Pyramid pyramid{seq_len, static_cast<int>(config.num_levels), config.log2_pool()};
  return pyramid.entry_offset(pyramid.num_levels);
}

/// Appends document [token_begin, token_begin + seq_len) and its tiles.
void add_document(SequencePlan& plan, int64_t token_begin, int64_t seq_len, int64_t num_tiles, int64_t topk) {
  const auto index = static_cast<int32_t>(plan.documents.size());
  Pyramid pyramid{seq_len, static_cast<int>(plan.config.num_levels), plan.config.log2_pool()};
  std::vector<Tile> tiles = tiles_of(pyramid, index, num_tiles, topk);
  if (rows_of(tiles) >= seq_len) {  // it would not get shorter
    pyramid.num_levels = 1;
    tiles = tiles_of(pyramid, index, num_tiles, topk);
  }
  const TileRun run{pyramid.num_coarse(), num_tiles, topk, 0, static_cast<int64_t>(tiles.size()), 0};
  plan.documents.push_back(
      {pyramid, token_begin, plan.num_entries, plan.num_slots, run, plan.gathered_len, rows_of(tiles), 0});
  for (Tile& tile : tiles) {
    tile.row_begin += plan.gathered_len;
    plan.tiles.push_back(tile);
  }
  plan.gathered_len += plan.documents.back().num_rows;
  plan.num_entries += entries_of_all_levels(plan.config, seq_len);
  plan.num_slots += pyramid.slot_offset(pyramid.num_levels);
}

/// Appends the tiles [begin, end) of a plan, all of one document whose first tile is `first`, as a document.
void add_run(SequencePlan& part, const SequencePlan& plan, int64_t first, int64_t begin, int64_t end) {
  const Document& whole = plan.documents[plan.tiles[begin].document];
  const Pyramid& pyramid = whole.pyramid;
  const int64_t coarse_begin = plan.tiles[begin].shape.coarse_begin;
  const TileShape& last = plan.tiles[end - 1].shape;
  const int64_t token_begin = coarse_begin << pyramid.shift(pyramid.num_levels - 1);
  const TokenRange last_window =
      entry_window(pyramid, {pyramid.num_levels - 1, last.coarse_begin + last.num_coarse - 1});

  Document run = whole;
  run.pyramid.seq_len = last_window.end - token_begin;
  run.token_begin = part.seq_len;
  run.entry_begin = part.num_entries;
  run.slot_begin = part.num_slots;
  run.tiles.first += begin - first;
  run.tiles.count = end - begin;
  run.tiles.coarse_begin += coarse_begin;
  run.row_begin = part.gathered_len;
  run.num_rows = 0;
  run.tokens_after =
      std::min(pyramid.window(pyramid.num_levels - 1) - 1, pyramid.seq_len + whole.tokens_after - last_window.end);
  for (int64_t i = begin; i < end; ++i) {
    Tile tile = plan.tiles[i];
    tile.document = static_cast<int32_t>(part.documents.size());
    tile.shape.coarse_begin -= coarse_begin;
    tile.row_begin = part.gathered_len + run.num_rows;
    run.num_rows += tile.num_rows;
    part.tiles.push_back(tile);
  }
  part.documents.push_back(run);
  part.seq_len += run.pyramid.seq_len;
  part.gathered_len += run.num_rows;
  part.num_entries += entries_of_all_levels(part.config, run.pyramid.seq_len);
  part.num_slots += run.pyramid.slot_offset(pyramid.num_levels);
}

}  // namespace

void SelectionConfig::validate(const char* operation) const {
  LIGHTHOUSE_CHECK(num_levels >= 1 && num_levels <= kMaxLevels, operation, ": num_levels is ", num_levels,
                   "; it must be between 1 (plain attention) and ", kMaxLevels);
  LIGHTHOUSE_CHECK(pooling_factor == 2 || pooling_factor == 4 || pooling_factor == 8 || pooling_factor == 16, operation,
                   ": pooling_factor is ", pooling_factor, "; it must be 2, 4, 8 or 16");
  LIGHTHOUSE_CHECK(topk >= 1 && topk <= kMaxIndex, operation, ": topk is ", topk, "; it must be between 1 and ",
                   kMaxIndex);
  LIGHTHOUSE_CHECK(tile_topk >= 1 && tile_topk <= kMaxIndex, operation, ": tile_topk is ", tile_topk,
                   "; it must be between 1 and ", kMaxIndex);
}

int SelectionConfig::log2_pool() const { return std::countr_zero(static_cast<uint64_t>(pooling_factor)); }

SequencePlan make_plan(const SelectionConfig& config, int64_t seq_len, std::span<const int64_t> cu_seqlens,
                       const char* operation) {
  config.validate(operation);
  LIGHTHOUSE_CHECK(seq_len >= 1 && seq_len <= kMaxIndex, operation, ": the sequence has ", seq_len,
                   " tokens; it must have between 1 and ", kMaxIndex);
  if (!cu_seqlens.empty()) check_cu_seqlens(cu_seqlens, seq_len, operation);

  SequencePlan plan;
  plan.config = config;
  plan.seq_len = seq_len;
  const int64_t num_tiles = ceil_div(config.topk, config.tile_topk);  // T
  const Pyramid row{seq_len, static_cast<int>(config.num_levels), config.log2_pool()};
  LIGHTHOUSE_CHECK(row.entry_offset(row.num_levels) <= kMaxIndex, operation, ": a pyramid of ", config.num_levels,
                   " levels by ", config.pooling_factor, " over ", seq_len, " tokens has ",
                   row.entry_offset(row.num_levels),
                   " entries, which int32 cannot number; use fewer levels or a shorter sequence");
  const int64_t single[] = {0, seq_len};
  const std::span<const int64_t> bounds = cu_seqlens.empty() ? std::span<const int64_t>(single) : cu_seqlens;
  for (size_t doc = 0; doc + 1 < bounds.size(); ++doc) {
    const int64_t doc_len = bounds[doc + 1] - bounds[doc];
    const Pyramid pyramid{doc_len, row.num_levels, row.log2_pool};
    const int64_t doc_tiles = ceil_div(pyramid.num_coarse() * num_tiles, row.num_coarse());  // T_i
    add_document(plan, bounds[doc], doc_len, doc_tiles, split_begin(config.topk, num_tiles, doc_tiles));
  }
  LIGHTHOUSE_CHECK(plan.num_entries <= kMaxIndex, operation, ": ", plan.num_entries,
                   " pyramid entries; int32 indices hold at most ", kMaxIndex,
                   "; use a shorter sequence or fewer levels");
  return plan;
}

SequencePlan part_of(const SequencePlan& plan, int64_t tile_begin, int64_t tile_end) {
  const auto num_tiles = static_cast<int64_t>(plan.tiles.size());
  LIGHTHOUSE_CHECK(tile_begin >= 0 && tile_begin < tile_end && tile_end <= num_tiles, "part_of: tiles [", tile_begin,
                   ", ", tile_end, ") are no part of the plan's ", num_tiles, "; a part has one tile or more of them");
  SequencePlan part;
  part.config = plan.config;
  int64_t first = 0;  // of the document's tiles
  for (int64_t end = 0; first < tile_end; first = end) {
    while (end < num_tiles && plan.tiles[end].document == plan.tiles[first].document) ++end;
    const int64_t begin = std::max(first, tile_begin);
    if (begin < std::min(end, tile_end)) add_run(part, plan, first, begin, std::min(end, tile_end));
  }
  return part;
}

int64_t gathered_length(int64_t seq_len, const SelectionConfig& config, std::span<const int64_t> cu_seqlens) {
  return make_plan(config, seq_len, cu_seqlens, "gathered_length").gathered_len;
}

}  // namespace lighthouse
