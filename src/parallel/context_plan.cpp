#include "parallel/context_plan.h"

#include <algorithm>
#include <cstdlib>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// The first token of every tile, and the end.
std::vector<int64_t> tile_begins(const SequencePlan& plan) {
  std::vector<int64_t> begins;
  for (const Tile& tile : plan.tiles) {
    const Document& document = plan.documents[static_cast<size_t>(tile.document)];
    begins.push_back(document.token_begin +
                     tile.shape.coarse_begin * document.pyramid.window(document.pyramid.num_levels - 1));
  }
  begins.push_back(plan.seq_len);
  return begins;
}

int64_t tile_at(const std::vector<int64_t>& begins, int64_t token, const SequencePlan& plan) {
  const auto found = std::lower_bound(begins.begin(), begins.end(), token);
  LIGHTHOUSE_CHECK(found != begins.end() && *found == token, "context parallelism: ranks are cut at token ", token,
                   ", which is inside of a tile for k = ", plan.config.topk, ", m = ", plan.config.tile_topk,
                   " and L = ", plan.config.num_levels,
                   "; give all Lighthouse layers the same number of tiles (topk / tile_topk) and levels");
  return found - begins.begin();
}

}  // namespace

Span common_part(const Span& a, const Span& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

std::vector<Span> token_spans(const SequencePlan& plan, int64_t num_ranks) {
  const std::vector<int64_t> begins = tile_begins(plan);
  const auto num_tiles = static_cast<int64_t>(plan.tiles.size());
  LIGHTHOUSE_CHECK(num_ranks >= 1 && num_ranks <= num_tiles, "context parallelism: ", num_tiles, " tiles for ",
                   num_ranks,
                   " ranks; each needs one. Take fewer ranks, or more tiles: a smaller "
                   "attention.tile_topk, which selects otherwise");
  std::vector<Span> spans;
  int64_t tile = 0;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t begin = begins[static_cast<size_t>(tile)];
    const int64_t wanted = (rank + 1) * plan.seq_len / num_ranks;
    const int64_t last = num_tiles - (num_ranks - rank - 1);  // a tile for each of the ranks after
    const auto distance = [&](int64_t end) { return std::abs(begins[static_cast<size_t>(end)] - wanted); };
    int64_t end = tile + 1;
    while (end < last && (rank == num_ranks - 1 || distance(end + 1) <= distance(end))) ++end;
    spans.push_back({begin, begins[static_cast<size_t>(end)]});
    tile = end;
  }
  return spans;
}

std::vector<Span> equal_spans(int64_t num_tokens, int64_t num_ranks) {
  std::vector<Span> spans;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    spans.push_back({rank * num_tokens / num_ranks, (rank + 1) * num_tokens / num_ranks});
  }
  return spans;
}

ContextPlan context_plan(const SequencePlan& whole, const std::vector<Span>& tokens, int64_t rank) {
  const std::vector<int64_t> begins = tile_begins(whole);
  ContextPlan plan;
  plan.tokens = tokens;
  for (const Span& span : tokens) {
    const int64_t first = tile_at(begins, span.begin, whole), end = tile_at(begins, span.end, whole);
    const Tile& last = whole.tiles[static_cast<size_t>(end - 1)];
    plan.rows.push_back({whole.tiles[static_cast<size_t>(first)].row_begin, last.row_begin + last.num_rows});
  }
  const Span& own = tokens[static_cast<size_t>(rank)];
  plan.tiles = {tile_at(begins, own.begin, whole), tile_at(begins, own.end, whole)};
  plan.part = part_of(whole, plan.tiles.begin, plan.tiles.end);
  plan.continues_before = plan.part.documents.front().tiles.first > 0;
  plan.tokens_after = plan.part.documents.back().tokens_after;
  plan.num_halo = (int64_t{1} << ((whole.config.num_levels - 1) * whole.config.log2_pool())) - 1;
  return plan;
}

}  // namespace lighthouse
