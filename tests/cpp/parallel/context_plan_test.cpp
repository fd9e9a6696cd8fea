// Where ranks are cut.
#include "parallel/context_plan.h"

#include <gmock/gmock.h>

#include <random>

#include "lighthouse/check.h"

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

}  // namespace
}  // namespace lighthouse
