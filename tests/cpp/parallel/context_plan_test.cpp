// Where ranks are cut.
#include "parallel/context_plan.h"

#include <gmock/gmock.h>

#include <random>

#include "lighthouse/check.h"
#include "parallel/row_pieces.h"

namespace lighthouse {
namespace {

using ::testing::HasSubstr;

SelectionConfig config_of(int64_t num_levels, int64_t pooling_factor, int64_t topk, int64_t tile_topk) {
  return {num_levels, pooling_factor, topk, tile_topk, true};
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TokenSpans, AreEqualWhereRanksDivideTiles) {
  const SequencePlan plan = make_plan(config_of(3, 4, 1536, 96), 98304);
  for (const int64_t ranks : {1, 2, 4, 8, 16}) {
    for (const Span& span : token_spans(plan, ranks)) EXPECT_EQ(span.size(), 98304 / ranks);
  }
}

TEST(TokenSpans, AreNextToEqualElse) {
  const SequencePlan plan = make_plan(config_of(3, 4, 1536, 128), 98304);  // 12 tiles of 8,192 tokens
  std::vector<int64_t> sizes;
  for (const Span& span : token_spans(plan, 8)) sizes.push_back(span.size() / 8192);
  EXPECT_EQ(sizes, (std::vector<int64_t>{2, 1, 2, 1, 2, 1, 2, 1}));
  EXPECT_THAT(refusal([&] { token_spans(plan, 13); }), HasSubstr("12 tiles for 13 ranks"));
}

TEST(ContextPlans, OfRanksCoverTheWholeInOrder) {
  std::mt19937 random(1);
  const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<uint64_t>(limit)); };
  int64_t cut_documents = 0, shared = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<int64_t> cu_seqlens{0};
    for (int64_t documents = below(6); documents > 0; --documents) cu_seqlens.push_back(cu_seqlens.back() + below(120));
    if (cu_seqlens.back() == 0) cu_seqlens.clear();
    const int64_t seq_len = cu_seqlens.empty() ? 1 + below(500) : cu_seqlens.back();
    const SequencePlan whole = make_plan(config_of(2 + below(3), 2, 1 + below(12), 1 + below(4)), seq_len, cu_seqlens);
    const auto num_tiles = static_cast<int64_t>(whole.tiles.size());
    for (const int64_t ranks : {1, 2, 3, 4, 8}) {
      if (ranks > num_tiles) continue;
      const std::vector<Span> tokens = token_spans(whole, ranks);
      int64_t token = 0, row = 0;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const ContextPlan plan = context_plan(whole, tokens, rank);
        const Span own = plan.tokens[static_cast<size_t>(rank)], rows = plan.rows[static_cast<size_t>(rank)];
        EXPECT_EQ(own.begin, token);
        EXPECT_EQ(rows.begin, row);
        EXPECT_EQ(own.size(), plan.part.seq_len);
        EXPECT_EQ(rows.size(), plan.part.gathered_len);
        EXPECT_GT(own.size(), 0);
        EXPECT_LE(plan.tokens_after, plan.num_halo);
        EXPECT_LE(plan.tokens_after, rank + 1 < ranks ? tokens[static_cast<size_t>(rank) + 1].size() : 0);
        EXPECT_FALSE(rank == 0 && plan.continues_before);
        cut_documents += plan.continues_before;
        shared += plan.tokens_after;
        token = own.end;
        row = rows.end;
      }
      EXPECT_EQ(token, whole.seq_len);
      EXPECT_EQ(row, whole.gathered_len);
    }
  }
  EXPECT_GT(cut_documents, 100);
  EXPECT_GT(shared, 100);
}

TEST(ContextPlans, RefuseALayerWhoseTilesLieOtherwise) {
  const SequencePlan plan = make_plan(config_of(3, 4, 1536, 128), 98304);
  const std::vector<Span> tokens = token_spans(plan, 4);
  EXPECT_EQ(refusal([&] { context_plan(make_plan(config_of(3, 4, 3072, 256), 98304), tokens, 0); }), "accepted");
  EXPECT_THAT(refusal([&] { context_plan(make_plan(config_of(3, 4, 1280, 128), 98304), tokens, 0); }),
              HasSubstr("inside of a tile for k = 1280"));
}

int64_t pairs_of(const std::vector<int64_t>& document_rows, const Span& rows) {
  int64_t pairs = 0, begin = 0;
  for (const int64_t count : document_rows) {
    for (int64_t row = 0; row < count; ++row) {
      if (begin + row >= rows.begin && begin + row < rows.end) pairs += row + 1;
    }
    begin += count;
  }
  return pairs;
}

TEST(RowPieces, HaveEqualWork) {
  for (const std::vector<int64_t>& documents :
       {std::vector<int64_t>{10000}, {0, 6000, 0, 10, 3000, 990}, {100, 9900}}) {
    const int64_t all = pairs_of(documents, {0, 10000});
    for (const int64_t num_pieces : {1, 2, 3, 4, 8, 16}) {
      int64_t row = 0;
      for (const RowPiece& piece : row_pieces(documents, num_pieces)) {
        EXPECT_EQ(piece.queries.begin, row);
        row = piece.queries.end;
        EXPECT_EQ(piece.keys.end, row);
        EXPECT_NEAR(static_cast<double>(pairs_of(documents, piece.queries)),
                    static_cast<double>(all) / static_cast<double>(num_pieces), 10000);
      }
      EXPECT_EQ(row, 10000);
    }
  }
  const std::vector<RowPiece> halves = row_pieces({98304}, 2);
  EXPECT_EQ(halves[0].queries, (Span{0, 69511})) << "sqrt(1/2) of the rows";
  EXPECT_EQ(halves[1].keys, (Span{0, 98304}));
}

TEST(RowPieces, SeeTheirDocumentFromItsBeginning) {
  const std::vector<int64_t> documents{30, 0, 40, 30};
  const std::vector<RowPiece> pieces = row_pieces(documents, 3);
  EXPECT_EQ(pieces[0].keys, (Span{0, pieces[0].queries.end}));
  EXPECT_EQ(pieces[1].keys.begin, 30);
  EXPECT_EQ(pieces[2].keys.begin, 30) << pieces[2].queries.begin;
  EXPECT_EQ(rows_within(documents, {20, 75}), (std::vector<int64_t>{10, 40, 5}));
  EXPECT_EQ(rows_within(documents, {30, 70}), (std::vector<int64_t>{40}));
}

TEST(RowPieces, HaveARowEach) {
  for (const RowPiece& piece : row_pieces({1, 1, 1}, 3)) EXPECT_EQ(piece.queries.size(), 1);
  for (const RowPiece& piece : row_pieces({4}, 4)) EXPECT_EQ(piece.queries.size(), 1);
  EXPECT_THAT(refusal([] { row_pieces({2, 1}, 4); }), HasSubstr("3 rows for 4 ranks"));
}

}  // namespace
}  // namespace lighthouse
