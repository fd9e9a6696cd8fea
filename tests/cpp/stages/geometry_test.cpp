// Every index formula, exhaustively at small sizes, and plans against what their documents say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lighthouse/check.h"
#include "lighthouse/cpu_features.h"
#include "lighthouse/geometry.h"
#include "support/message_of.h"

namespace lighthouse {
namespace {

SelectionConfig make_config(int64_t num_levels, int64_t pooling_factor, int64_t topk, int64_t tile_topk) {
  SelectionConfig config;
  config.num_levels = num_levels;
  config.pooling_factor = pooling_factor;
  config.topk = topk;
  config.tile_topk = tile_topk;
  return config;
}

/// Calls check(pyramid) for sizes around every window boundary.
template <typename Check>
void for_each_pyramid(const Check& check) {
  for (int num_levels = 1; num_levels <= 4; ++num_levels) {
    for (int log2_pool = 1; log2_pool <= 3; ++log2_pool) {
      for (int64_t seq_len = 0; seq_len <= 140; ++seq_len) {
        SCOPED_TRACE("L=" + std::to_string(num_levels) + " log2_pool=" + std::to_string(log2_pool) +
                     " N=" + std::to_string(seq_len));
        check(Pyramid{seq_len, num_levels, log2_pool});
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(Geometry, FlatEntriesCountLevelsFinestFirst) {
  for_each_pyramid([](const Pyramid& pyramid) {
    int64_t flat = 0;
    int64_t slot = 0;
    for (int level = 0; level < pyramid.num_levels; ++level) {
      ASSERT_EQ(pyramid.entry_offset(level), flat);
      ASSERT_EQ(pyramid.slot_offset(level), slot);
      int64_t holding_a_token = 0;
      for (int64_t begin = 0; begin < pyramid.padded_len(); begin += pyramid.window(level)) {
        const Entry entry = entry_at(pyramid, flat++);
        ASSERT_EQ(entry.level, level);
        ASSERT_EQ(entry.index, begin / pyramid.window(level));
        if (begin < pyramid.seq_len) ++holding_a_token;
      }
      ASSERT_EQ(pyramid.level_size(level), holding_a_token);
      slot += holding_a_token;
    }
    ASSERT_EQ(pyramid.entry_offset(pyramid.num_levels), flat);
    ASSERT_EQ(pyramid.slot_offset(pyramid.num_levels), slot);
    ASSERT_LT(pyramid.padded_len() - pyramid.seq_len, pyramid.window(pyramid.num_levels - 1));
  });
}

TEST(Geometry, WindowsAndScatterRangesTileTheSequence) {
  for_each_pyramid([](const Pyramid& pyramid) {
    for (int level = 0; level < pyramid.num_levels; ++level) {
      int64_t window_end = 0;
      int64_t scatter_end = std::min(pyramid.window(level) - 1, pyramid.seq_len);
      for (int64_t index = 0; index < pyramid.padded_len() >> pyramid.shift(level); ++index) {
        const TokenRange window = entry_window(pyramid, {level, index});
        ASSERT_EQ(window.begin, window_end);
        window_end = window.end;
        for (int64_t token = window.begin; token < window.end; ++token) {
          ASSERT_EQ(entry_holding(pyramid, level, token), index);
        }
        const TokenRange scattered = scatter_range(pyramid, {level, index});
        ASSERT_EQ(scattered.begin, scatter_end);
        scatter_end = scattered.end;
        for (int64_t token = scattered.begin; token < scattered.end; ++token) {
          ASSERT_EQ(scattered_entry(pyramid, level, token), index);
          ASSERT_GE(token + 1, window.end) << "a row is added before its window ends";
        }
      }
      ASSERT_EQ(window_end, pyramid.seq_len);
      ASSERT_EQ(scatter_end, pyramid.seq_len);
      for (int64_t token = 0; token < std::min(pyramid.window(level) - 1, pyramid.seq_len); ++token) {
        ASSERT_EQ(scattered_entry(pyramid, level, token), -1);
      }
    }
  });
}

TEST(Geometry, TilesShareEntriesAndBudget) {
  for (int64_t num_coarse = 1; num_coarse <= 40; ++num_coarse) {
    for (int64_t topk = 1; topk <= 40; ++topk) {
      for (int64_t num_tiles = 1; num_tiles <= topk; ++num_tiles) {
        std::vector<TileShape> listed;
        for (int64_t tile = 0; tile < num_tiles; ++tile) {
          const int64_t begin = tile * num_coarse / num_tiles;
          const int64_t end = (tile + 1) * num_coarse / num_tiles;
          const int64_t budget = (tile + 1) * topk / num_tiles - tile * topk / num_tiles;
          if (begin < end) listed.push_back({begin, end - begin, budget});
        }
        ASSERT_EQ(num_filled_tiles(num_coarse, num_tiles), static_cast<int64_t>(listed.size()));
        for (size_t filled = 0; filled < listed.size(); ++filled) {
          const TileShape shape = tile_shape(num_coarse, num_tiles, topk, static_cast<int64_t>(filled));
          ASSERT_EQ(shape.coarse_begin, listed[filled].coarse_begin);
          ASSERT_EQ(shape.num_coarse, listed[filled].num_coarse);
          ASSERT_EQ(shape.budget, listed[filled].budget);
          ASSERT_GE(shape.budget, 1);
        }
      }
    }
  }
}

/// S by adding up what every tile expands (section iii), before it is known whether that is shorter than the sequence.
int64_t expanded_length(int64_t seq_len, const SelectionConfig& config) {
  int64_t span = 1;
  for (int64_t level = 1; level < config.num_levels; ++level) span *= config.pooling_factor;
  const int64_t coarse = (seq_len + span - 1) / span;
  const int64_t tiles = (config.topk + config.tile_topk - 1) / config.tile_topk;
  int64_t length = coarse;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t budget = (tile + 1) * config.topk / tiles - tile * config.topk / tiles;
    int64_t candidates = (tile + 1) * coarse / tiles - tile * coarse / tiles;
    for (int64_t level = config.num_levels - 1; level >= 1; --level) {
      const int64_t expanded = std::min(budget, candidates);
      length += config.pooling_factor * expanded;
      candidates = config.pooling_factor * expanded;
    }
  }
  return length;
}

TEST(Geometry, GatheredLengthFollowsItsFormula) {
  for (int64_t num_levels = 1; num_levels <= 4; ++num_levels) {
    for (const int64_t pooling_factor : {2, 4, 8, 16}) {
      for (int64_t topk = 1; topk <= 33; topk += 4) {
        for (const int64_t tile_topk : {1, 2, 5, 128}) {
          for (int64_t seq_len = 1; seq_len <= 300; seq_len += 13) {
            const SelectionConfig config = make_config(num_levels, pooling_factor, topk, tile_topk);
            const SequencePlan plan = make_plan(config, seq_len);
            const int64_t expanded_len = expanded_length(seq_len, config);
            ASSERT_EQ(plan.gathered_len, std::min(expanded_len, seq_len));
            ASSERT_EQ(plan.is_full(), expanded_len >= seq_len);
            ASSERT_EQ(plan.documents[0].pyramid.num_levels, expanded_len >= seq_len ? 1 : num_levels);
            ASSERT_EQ(gathered_length(seq_len, config), plan.gathered_len);
            int64_t row = 0;
            int64_t coarse = 0;
            for (const Tile& tile : plan.tiles) {
              ASSERT_EQ(tile.row_begin, row);
              ASSERT_EQ(tile.shape.coarse_begin, coarse);
              row += tile.num_rows;
              coarse += tile.shape.num_coarse;
            }
            ASSERT_EQ(row, plan.gathered_len);
            ASSERT_EQ(coarse, plan.documents[0].pyramid.num_coarse());
          }
        }
      }
    }
  }
}

TEST(Geometry, GatheredLengthOfThePaper) {
  EXPECT_EQ(gathered_length(98304, make_config(3, 4, 1536, 128)), 18432);
  EXPECT_EQ(gathered_length(16384, make_config(3, 4, 256, 128)), 3072);
  EXPECT_EQ(gathered_length(777, make_config(1, 16, 5, 128)), 777);
  EXPECT_EQ(gathered_length(1, make_config(8, 16, 1, 128)), 1);
}

TEST(Geometry, DocumentAloneEqualsUnpackedRow) {
  for (int64_t seq_len = 1; seq_len <= 70; ++seq_len) {
    for (const int64_t topk : {1, 3, 8, 100}) {
      const SelectionConfig config = make_config(3, 2, topk, 3);
      const SequencePlan unpacked = make_plan(config, seq_len);
      const std::vector<int64_t> cu_seqlens = {0, 0, seq_len, seq_len};
      const SequencePlan packed = make_plan(config, seq_len, cu_seqlens);
      ASSERT_EQ(packed.gathered_len, unpacked.gathered_len);
      ASSERT_EQ(packed.num_entries, unpacked.num_entries);
      ASSERT_EQ(packed.num_slots, unpacked.num_slots);
      ASSERT_EQ(packed.documents.size(), 3U);
      ASSERT_EQ(packed.documents[1].tiles.topk, topk);
      ASSERT_EQ(packed.documents[0].num_rows, 0);
      ASSERT_EQ(packed.documents[2].num_rows, 0);
      ASSERT_EQ(packed.tiles.size(), unpacked.tiles.size());
    }
  }
}

TEST(Geometry, DocumentEqualsCallWithItsShareOfTheBudget) {
  const std::vector<int64_t> cu_seqlens = {0, 17, 17, 40, 41, 128, 200};
  for (const int64_t topk : {1, 2, 7, 16, 33, 128}) {
    for (const int64_t tile_topk : {1, 3, 4, 128}) {
      const SequencePlan plan = make_plan(make_config(3, 4, topk, tile_topk), 200, cu_seqlens);
      const int64_t num_tiles = ceil_div(topk, tile_topk);
      int64_t row = 0, entry = 0, slot = 0;
      for (const Document& document : plan.documents) {
        ASSERT_EQ(document.row_begin, row);
        ASSERT_EQ(document.entry_begin, entry);
        ASSERT_EQ(document.slot_begin, slot);
        row += document.num_rows;
        const Pyramid whole{document.pyramid.seq_len, 3, 2};
        entry += whole.entry_offset(3);
        slot += document.pyramid.slot_offset(document.pyramid.num_levels);
        if (document.pyramid.seq_len == 0) continue;
        const int64_t share = ceil_div(whole.num_coarse() * num_tiles, 13);  // ceil(200 / 16) coarsest
        ASSERT_EQ(document.tiles.num_tiles, share);
        ASSERT_EQ(document.tiles.topk, share * topk / num_tiles);
        const SequencePlan alone =
            make_plan(make_config(3, 4, document.tiles.topk, tile_topk), document.pyramid.seq_len);
        ASSERT_EQ(alone.gathered_len, document.num_rows);
        ASSERT_EQ(alone.documents[0].pyramid.num_levels, document.pyramid.num_levels);
      }
      ASSERT_EQ(row, plan.gathered_len);
      ASSERT_EQ(entry, plan.num_entries);
      ASSERT_EQ(slot, plan.num_slots);
    }
  }
}

TEST(Geometry, DocumentsThatWouldNotGetShorterKeepTheirTokens) {
  // Two tiles with budgets of 4. A document of 256 tokens expands (4 + 4) entries, one of 8 tokens all it has.
  const SelectionConfig config = make_config(3, 2, 8, 4);
  const SequencePlan plan = make_plan(config, 272, std::vector<int64_t>{0, 8, 264, 264, 272});
  ASSERT_EQ(plan.documents.size(), 4U);
  EXPECT_EQ(plan.documents[0].num_rows, 8);
  EXPECT_EQ(plan.documents[1].num_rows, 64 + 2 * 2 * 8);
  EXPECT_EQ(plan.documents[2].num_rows, 0);
  EXPECT_EQ(plan.documents[3].num_rows, 8);
  EXPECT_FALSE(plan.is_full());
  EXPECT_EQ(plan.gathered_len, 8 + 96 + 8);
  // Entries are numbered as though all levels were gathered from; slots are of the levels that are.
  EXPECT_EQ(plan.documents[1].entry_begin, 8 + 4 + 2);
  EXPECT_EQ(plan.documents[1].slot_begin, 8);
  EXPECT_EQ(plan.documents[3].slot_begin, 8 + 256 + 128 + 64);
  EXPECT_EQ(plan.num_slots, 8 + 256 + 128 + 64 + 8);
  EXPECT_TRUE(make_plan(config, 24, std::vector<int64_t>{0, 8, 8, 16, 17, 24}).is_full());
}

TEST(Geometry, LargerBudgetNeverCostsMoreThanTheTokens) {
  int64_t before = 0;
  for (const int64_t topk : {1, 2, 8, 40, 200, 1000, 100000}) {
    const int64_t rows = gathered_length(1000, make_config(3, 4, topk, 16));
    EXPECT_GE(rows, before);
    EXPECT_LE(rows, 1000);
    before = rows;
  }
  EXPECT_EQ(before, 1000);
}

TEST(Geometry, WrongConfigurationsSayWhatIsWrong) {
  const auto message = [](const SelectionConfig& config, int64_t seq_len, const std::vector<int64_t>& cu_seqlens = {}) {
    return message_of([&] { make_plan(config, seq_len, cu_seqlens, "select"); });
  };
  EXPECT_EQ(message(make_config(0, 4, 1, 1), 8),
            "select: num_levels is 0; it must be between 1 (plain attention) and 8");
  EXPECT_EQ(message(make_config(9, 4, 1, 1), 8),
            "select: num_levels is 9; it must be between 1 (plain attention) and 8");
  EXPECT_EQ(message(make_config(3, 3, 1, 1), 8), "select: pooling_factor is 3; it must be 2, 4, 8 or 16");
  EXPECT_EQ(message(make_config(3, 32, 1, 1), 8), "select: pooling_factor is 32; it must be 2, 4, 8 or 16");
  EXPECT_EQ(message(make_config(3, 4, 0, 1), 8), "select: topk is 0; it must be between 1 and 2147483647");
  EXPECT_EQ(message(make_config(3, 4, 1, 0), 8), "select: tile_topk is 0; it must be between 1 and 2147483647");
  EXPECT_EQ(message(make_config(3, 4, 1, -1), 8), "select: tile_topk is -1; it must be between 1 and 2147483647");
  const SelectionConfig good = make_config(3, 4, 1, 1);
  EXPECT_THAT(message(good, 0), testing::HasSubstr("0 tokens"));
  EXPECT_THAT(message(good, int64_t{1} << 31), testing::HasSubstr("2147483648 tokens"));
  EXPECT_THAT(message(good, 8, {0}), testing::HasSubstr("at least 2"));
  EXPECT_THAT(message(good, 8, {1, 8}), testing::HasSubstr("starts at 1"));
  EXPECT_THAT(message(good, 8, {0, 5, 4, 8}), testing::HasSubstr("decreases from 5 to 4 at position 2"));
  EXPECT_THAT(message(good, 8, {0, 7}), testing::HasSubstr("ends at 7, but the row has 8 tokens"));
}

TEST(Geometry, HugeSizesAreCountedOrRefused) {
  const int64_t max = std::numeric_limits<int32_t>::max();
  const SequencePlan plan = make_plan(make_config(1, 2, max, 1 << 20), max);
  EXPECT_EQ(plan.gathered_len, max);
  EXPECT_THAT(message_of([&] { make_plan(make_config(2, 2, 1, 128), max); }), testing::HasSubstr("int32"));
  EXPECT_THAT(message_of([&] { make_plan(make_config(8, 16, 1, 128), max); }), testing::HasSubstr("int32"));
  // 8 levels by 16: one coarsest entry spans 2^28 tokens.
  EXPECT_EQ(make_plan(make_config(8, 16, max, max), 1).num_slots, 1);
  const std::vector<int64_t> many_documents = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_THAT(message_of([&] { make_plan(make_config(8, 16, 1, 128), 9, many_documents); }),
              testing::HasSubstr("int32"));
}

TEST(Geometry, ThisProcessorRunsTheStages) { EXPECT_NO_THROW(require_cpu_features()); }

}  // namespace
}  // namespace lighthouse
