// Selection and slots against the reference, exactly, and the properties that section (iv) promises.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "lighthouse/check.h"
#include "lighthouse/select.h"
#include "stage_cases.h"
#include "support/message_of.h"
#include "support/threads.h"

namespace lighthouse {
namespace {

constexpr int32_t kIntCanary = -777;
constexpr int64_t kGuard = 16;

/// An output array between guards.
class GuardedInts {
 public:
  explicit GuardedInts(int64_t size) : values_(static_cast<size_t>(size + 2 * kGuard), kIntCanary) {}
  int32_t* data() { return values_.data() + kGuard; }
  std::vector<int32_t> values() const { return {values_.begin() + kGuard, values_.end() - kGuard}; }
  bool guards_intact() const {
    const auto is_canary = [](int32_t value) { return value == kIntCanary; };
    return std::all_of(values_.begin(), values_.begin() + kGuard, is_canary) &&
           std::all_of(values_.end() - kGuard, values_.end(), is_canary);
  }

 private:
  std::vector<int32_t> values_;
};

struct Selected {
  std::vector<int32_t> selection, slots;
};

Selected run_select(const StageCase& c, const std::vector<float>& s_qk, const std::vector<float>& s_kq,
                    const ParallelFor& parallel_for = serial_for) {
  const SequencePlan plan = c.plan();
  GuardedInts selection(c.batch * c.num_kv_heads * plan.gathered_len);
  GuardedInts slots(c.batch * c.num_kv_heads * plan.num_slots);
  select_entries({s_qk.data(), s_kq.data(), &plan, c.batch, c.num_kv_heads, selection.data(), slots.data()},
                 parallel_for);
  EXPECT_TRUE(selection.guards_intact() && slots.guards_intact());
  return {selection.values(), slots.values()};
}

std::vector<int32_t> run_invert(const StageCase& c, const std::vector<int32_t>& selection) {
  const SequencePlan plan = c.plan();
  GuardedInts slots(c.batch * c.num_kv_heads * plan.num_slots);
  invert_selection({selection.data(), &plan, c.batch, c.num_kv_heads, slots.data()}, test_support::threaded_for(3));
  EXPECT_TRUE(slots.guards_intact());
  return slots.values();
}

/// The inverse of a selection by looking every entry up.
std::vector<int32_t> look_up_slots(const StageCase& c, const std::vector<int32_t>& selection) {
  const SequencePlan plan = c.plan();
  std::vector<int32_t> slots;
  for (int64_t head = 0; head < c.batch * c.num_kv_heads; ++head) {
    std::map<int64_t, int32_t> row_of;
    for (int64_t row = 0; row < plan.gathered_len; ++row) {
      row_of[selection[head * plan.gathered_len + row]] = static_cast<int32_t>(row);
    }
    for (const Document& document : plan.documents) {
      for (int level = 0; level < document.pyramid.num_levels; ++level) {
        for (int64_t entry = 0; entry < document.pyramid.level_size(level); ++entry) {
          const auto found = row_of.find(document.entry_begin + document.pyramid.entry_offset(level) + entry);
          slots.push_back(found == row_of.end() ? kNoRow : found->second);
        }
      }
    }
  }
  return slots;
}

TEST(Select, EqualsReferenceAtRandomConfigurations) {
  CaseGenerator random(1);
  int full = 0;   // rows whose sequences would not get shorter
  int mixed = 0;  // rows with documents of both kinds
  for (int i = 0; i < 1500; ++i) {
    const StageCase c = random.stage_case(i % 20 == 0 ? 5000 : 400);
    SCOPED_TRACE("case " + std::to_string(i) + ": " + testing::PrintToString(c));
    const std::vector<float> s_qk = random.scores(c.batch * c.num_kv_heads * c.seq_len);
    const std::vector<float> s_kq = random.scores(c.batch * c.num_kv_heads * c.seq_len);
    const Selected selected = run_select(c, s_qk, s_kq, test_support::threaded_for(1 + random.below(4)));
    const reference::Scores scores{score_tensor(s_qk, c), score_tensor(s_kq, c)};
    ASSERT_EQ(selected.selection, reference::select(scores, c.sequence()).entries);
    ASSERT_EQ(selected.slots, look_up_slots(c, selected.selection));
    ASSERT_EQ(run_invert(c, selected.selection), selected.slots);
    const SequencePlan plan = c.plan();
    const auto keeps_tokens = [](const Document& document) {
      return document.num_rows == document.pyramid.seq_len && document.num_rows > 0;
    };
    if (plan.is_full()) ++full;
    if (!plan.is_full() && std::any_of(plan.documents.begin(), plan.documents.end(), keeps_tokens)) ++mixed;
  }
  EXPECT_GT(full, 150);
  EXPECT_LT(full, 950);
  EXPECT_GT(mixed, 100);
}

struct RowWindow {
  int64_t begin, end;
  int level;
};

TEST(Select, LeavesTileTheSequenceAndRowsAreInPostOrder) {
  CaseGenerator random(2);
  for (int i = 0; i < 150; ++i) {
    StageCase c = random.stage_case(300);
    c.batch = c.num_heads = c.num_kv_heads = 1;
    SCOPED_TRACE("case " + std::to_string(i) + ": " + testing::PrintToString(c));
    const SequencePlan plan = c.plan();
    const Selected selected = run_select(c, random.scores(c.seq_len), random.scores(c.seq_len));
    for (const Document& document : plan.documents) {
      std::vector<RowWindow> rows;
      for (int64_t row = document.row_begin; row < document.row_begin + document.num_rows; ++row) {
        const Entry entry = entry_at(document.pyramid, selected.selection[row] - document.entry_begin);
        const int64_t window = document.pyramid.window(entry.level);
        rows.push_back({entry.index * window, (entry.index + 1) * window, entry.level});
      }
      int64_t covered = 0;
      for (size_t row = 0; row < rows.size(); ++row) {
        const RowWindow& here = rows[row];
        // A summary stands right after its children, so after a row that is inside its window.
        const bool leaf = row == 0 || rows[row - 1].begin < here.begin;
        if (leaf) {
          ASSERT_EQ(here.begin, covered) << "row " << row << " leaves a hole or overlaps";
          covered = here.end;
        }
        for (size_t earlier = 0; earlier < row; ++earlier) {
          ASSERT_LE(rows[earlier].end, here.end) << "row " << row << " would see row " << earlier;
          const bool inside = here.begin >= rows[earlier].begin && here.end <= rows[earlier].end;
          ASSERT_FALSE(inside) << "row " << row << " lies inside the window of row " << earlier;
        }
      }
      ASSERT_EQ(covered, document.pyramid.padded_len());
    }
  }
}

/// One head, one tile, four coarsest entries of eight tokens.
StageCase small_case(int64_t topk, bool cover_prefix) {
  StageCase c{};
  c.config.num_levels = 2;
  c.config.pooling_factor = 8;
  c.config.topk = topk;
  c.config.cover_prefix = cover_prefix;
  c.batch = c.num_heads = c.num_kv_heads = c.head_dim = 1;
  c.seq_len = 32;
  return c;
}

/// Indices of the coarsest entries that were expanded, given two scores of each window; its other tokens have the
/// second.
std::vector<int64_t> expanded(const StageCase& c, const std::vector<float>& s_qk, const std::vector<float>& s_kq) {
  const auto of_tokens = [](const std::vector<float>& scores) {
    std::vector<float> all;
    for (size_t i = 0; i < scores.size(); i += 2) {
      all.push_back(scores[i]);
      all.insert(all.end(), 7, scores[i + 1]);
    }
    return all;
  };
  const Selected selected = run_select(c, of_tokens(s_qk), of_tokens(s_kq));
  std::vector<int64_t> entries;
  for (int64_t entry = 0; entry < 4; ++entry) {
    if (selected.slots[8 * entry] != kNoRow) entries.push_back(entry);
  }
  return entries;
}

TEST(Select, TiesGoToTheLowerEntry) {
  const std::vector<float> equal(8, 1.0F);
  EXPECT_EQ(expanded(small_case(1, false), equal, equal), (std::vector<int64_t>{0}));
  EXPECT_EQ(expanded(small_case(2, false), equal, equal), (std::vector<int64_t>{0, 1}));
  const std::vector<float> zeros = {-0.0F, -0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F};
  EXPECT_EQ(expanded(small_case(1, false), zeros, zeros), (std::vector<int64_t>{0})) << "-0 equals +0";
}

TEST(Select, StreamsTakeTurns) {
  const std::vector<float> s_qk = {0, 0, 9, 9, 8, 8, 7, 7};
  const std::vector<float> s_kq = {3, 3, 9, 9, 1, 1, 2, 2};
  EXPECT_EQ(expanded(small_case(1, false), s_qk, s_kq), (std::vector<int64_t>{1}));
  EXPECT_EQ(expanded(small_case(2, false), s_qk, s_kq), (std::vector<int64_t>{0, 1})) << "entry 1 counts once";
  EXPECT_EQ(expanded(small_case(3, false), s_qk, s_kq), (std::vector<int64_t>{0, 1, 2}));
}

TEST(Select, NotANumberCountsAsLeast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> zeros(8, 0.0F);
  EXPECT_EQ(expanded(small_case(1, false), {nan, nan, -infinity, nan, -5, nan, -6, -6}, zeros),
            (std::vector<int64_t>{2}));
  EXPECT_EQ(expanded(small_case(1, false), {nan, nan, -infinity, nan, nan, nan, nan, nan}, zeros),
            (std::vector<int64_t>{0}))
      << "-infinity and NaN tie";
}

TEST(Select, CoverPrefixComesBeforeInfiniteScores) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> s_qk = {-infinity, -infinity, infinity, 0, infinity, 0, infinity, 0};
  EXPECT_EQ(expanded(small_case(1, true), s_qk, s_qk), (std::vector<int64_t>{0}));
  EXPECT_EQ(expanded(small_case(1, false), s_qk, s_qk), (std::vector<int64_t>{1}));
}

TEST(Select, CoverPrefixGivesEveryTokenARow) {
  CaseGenerator random(3);
  for (int i = 0; i < 100; ++i) {
    StageCase c = random.stage_case(300);
    c.config.cover_prefix = true;
    SCOPED_TRACE(testing::PrintToString(c));
    const int64_t size = c.batch * c.num_kv_heads * c.seq_len;
    const Selected selected = run_select(c, random.scores(size), random.scores(size));
    const SequencePlan plan = c.plan();
    for (const Document& document : plan.documents) {
      for (int64_t token = 0; token < document.pyramid.seq_len; ++token) {
        bool has_row = false;
        for (int level = 0; level < document.pyramid.num_levels && !has_row; ++level) {
          const int64_t entry = scattered_entry(document.pyramid, level, token);
          if (entry < 0) break;
          has_row = selected.slots[document.slot_begin + document.pyramid.slot_offset(level) + entry] != kNoRow;
        }
        ASSERT_TRUE(has_row) << "token " << token;
      }
    }
  }
}

/// One head of a row that expands one entry of each level.
StageCase chain_case(int64_t num_levels, int64_t pooling_factor, int64_t seq_len) {
  StageCase c{};
  c.config.num_levels = num_levels;
  c.config.pooling_factor = pooling_factor;
  c.batch = c.num_heads = c.num_kv_heads = c.head_dim = 1;
  c.seq_len = seq_len;
  return c;
}

TEST(Select, OneRowMoreThanTheDeepestPyramidGathers) {
  for (int64_t num_levels = 2; num_levels <= kMaxLevels; ++num_levels) {
    for (const int64_t pooling_factor : {2, 4, 8, 16}) {
      const int64_t num_rows = 1 + (num_levels - 1) * pooling_factor;
      const StageCase c = chain_case(num_levels, pooling_factor, num_rows + 1);
      if (c.coarse_span() < c.seq_len) continue;  // more than one coarsest entry
      const std::vector<float> scores(static_cast<size_t>(c.seq_len), 1.0F);
      const Selected selected = run_select(c, scores, scores);
      ASSERT_EQ(selected.selection.size(), static_cast<size_t>(num_rows));
      // Token 0 comes first, and its summaries after the last of their children.
      EXPECT_EQ(selected.selection[0], 0);
      const Pyramid pyramid = c.plan().documents[0].pyramid;
      for (int level = 0; level < num_levels; ++level) {
        EXPECT_EQ(selected.slots[pyramid.slot_offset(level)], level * pooling_factor);
      }
    }
  }
}

TEST(Select, RowsThatWouldNotGetShorterAreTheTokens) {
  for (int64_t num_levels = 1; num_levels <= kMaxLevels; ++num_levels) {
    for (const int64_t pooling_factor : {2, 4, 8, 16}) {
      for (const int64_t seq_len : {int64_t{1}, int64_t{2}, 1 + (num_levels - 1) * pooling_factor}) {
        const StageCase c = chain_case(num_levels, pooling_factor, seq_len);
        const std::vector<float> unread(static_cast<size_t>(seq_len), std::numeric_limits<float>::quiet_NaN());
        const Selected selected = run_select(c, unread, unread);
        std::vector<int32_t> tokens(static_cast<size_t>(seq_len));
        std::iota(tokens.begin(), tokens.end(), 0);
        EXPECT_EQ(selected.selection, tokens);
        EXPECT_EQ(selected.slots, tokens);
      }
    }
  }
}

TEST(InvertSelection, TrustsAllButTheRange) {
  StageCase c = small_case(1, true);
  c.batch = 2;
  c.num_heads = c.num_kv_heads = 3;
  const std::vector<float> scores(6 * 32, 1.0F);
  const std::vector<int32_t> good = run_select(c, scores, scores).selection;  // 0 ... 7, 32 ... 35
  ASSERT_EQ(good.size(), 6U * 12U);
  const auto message = [&](size_t position, int32_t value) {
    std::vector<int32_t> wrong = good;
    wrong[position] = value;
    return message_of([&] { run_invert(c, wrong); });
  };
  EXPECT_EQ(message(5, 36),
            "selection: (batch 0, KV head 0, row 5) is 36; rows [0, 12) belong to document 0, whose entries are "
            "numbered [0, 36); was it made for another configuration, length or cu_seqlens?");
  EXPECT_THAT(message(12 + 7, -1), testing::HasSubstr("(batch 0, KV head 1, row 7) is -1"));
  EXPECT_THAT(message(60, std::numeric_limits<int32_t>::min()), testing::HasSubstr("(batch 1, KV head 2, row 0)"));
  std::vector<int32_t> twice = good;
  twice[36 + 6] = 32;
  EXPECT_NO_THROW(run_invert(c, twice));
}

TEST(InvertSelection, NamesEntriesOfAnotherDocument) {
  StageCase c = small_case(1, true);
  c.cu_seqlens = {0, 4, 4, 32};
  const std::vector<float> scores(32, 1.0F);
  std::vector<int32_t> selection = run_select(c, scores, scores).selection;
  ASSERT_EQ(c.plan().documents[0].num_rows, 4) << "attended to in full, with entries of its own numbers alone";
  std::swap(selection.front(), selection.back());
  EXPECT_THAT(message_of([&] { run_invert(c, selection); }),
              testing::AllOf(testing::HasSubstr("row 0) is 44"), testing::HasSubstr("belong to document 0"),
                             testing::HasSubstr("numbered [0, 4)")));
}

}  // namespace
}  // namespace lighthouse
