#include "parallel/head_spans.h"

#include "lighthouse/check.h"
#include "parallel/row_pieces.h"

namespace lighthouse {
namespace {

int64_t head_groups(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks) {
  int64_t groups = num_ranks;
  const auto fits = [&] {
    const bool serves = num_kv_heads % groups == 0 || groups % num_kv_heads == 0;
    return num_ranks % groups == 0 && num_heads % groups == 0 && serves;
  };
  while (!fits()) --groups;
  return groups;
}

}  // namespace

HeadSpans::HeadSpans(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks)
    : num_head_groups(head_groups(num_heads, num_kv_heads, num_ranks)), num_row_groups(num_ranks / num_head_groups) {
  LIGHTHOUSE_CHECK(num_heads % num_kv_heads == 0, "context parallelism: ", num_heads, " query heads for ", num_kv_heads,
                   " key/value heads; every key/value head serves the same number of query heads");
  const int64_t group = num_heads / num_kv_heads;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t own = rank % num_head_groups;
    const Span span{own * num_heads / num_head_groups, (own + 1) * num_heads / num_head_groups};
    query.push_back(span);
    key.push_back({span.begin / group, (span.end - 1) / group + 1});
  }
}

HeadBlock common_part(const HeadBlock& a, const HeadBlock& b) {
  return {common_part(a.heads, b.heads), common_part(a.rows, b.rows)};
}

std::vector<HeadBlock> blocks_of_heads(const std::vector<Span>& heads, int64_t num_rows) {
  std::vector<HeadBlock> blocks;
  for (const Span& span : heads) blocks.push_back({span, {0, num_rows}});
  return blocks;
}

std::vector<HeadBlock> blocks_of_rows(const std::vector<Span>& rows, int64_t num_heads) {
  std::vector<HeadBlock> blocks;
  for (const Span& span : rows) blocks.push_back({{0, num_heads}, span});
  return blocks;
}

AttendedBlocks::AttendedBlocks(const HeadSpans& heads, const std::vector<int64_t>& document_rows) {
  const std::vector<RowPiece> pieces = row_pieces(document_rows, heads.num_row_groups);
  for (size_t rank = 0; rank < heads.query.size(); ++rank) {
    const RowPiece& piece = pieces[rank / static_cast<size_t>(heads.num_head_groups)];
    query.push_back({heads.query[rank], piece.queries});
    key.push_back({heads.key[rank], piece.keys});
  }
}

std::vector<int64_t> exchange_counts(const HeadBlock& own, const std::vector<HeadBlock>& blocks, int64_t batch) {
  std::vector<int64_t> counts;
  for (const HeadBlock& block : blocks) counts.push_back(batch * common_part(own, block).size());
  return counts;
}

}  // namespace lighthouse
