// What check_selection takes for a forest in gathered order, against the definition: sets of entries, and a sort.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lighthouse/check.h"
#include "lighthouse/forest.h"
#include "stage_cases.h"

namespace lighthouse {
namespace {

using EntrySet = std::set<std::pair<int, int64_t>>;

/// Section (iv) of one document: every coarsest entry; all children of an entry or none; by the end of the window, the
/// finer first.
bool is_forest_by_definition(const Document& document, const int32_t* selection) {
  const Pyramid& pyramid = document.pyramid;
  EntrySet entries;
  std::vector<std::pair<int64_t, int>> order;
  for (int64_t row = document.row_begin; row < document.row_begin + document.num_rows; ++row) {
    const int64_t flat = selection[row] - document.entry_begin;
    if (flat < 0 || flat >= pyramid.entry_offset(pyramid.num_levels)) return false;
    const Entry entry = entry_at(pyramid, flat);
    if (!entries.emplace(entry.level, entry.index).second) return false;
    order.emplace_back((entry.index + 1) << pyramid.shift(entry.level), entry.level);
  }
  for (int64_t index = 0; index < pyramid.num_coarse(); ++index) {
    if (entries.count({pyramid.num_levels - 1, index}) == 0) return false;
  }
  for (const auto& [level, index] : entries) {
    if (level == pyramid.num_levels - 1) continue;
    const int64_t parent = index / pyramid.window(1);
    if (entries.count({level + 1, parent}) == 0) return false;
    for (int64_t child = parent * pyramid.window(1); child < (parent + 1) * pyramid.window(1); ++child) {
      if (entries.count({level, child}) == 0) return false;
    }
  }
  return std::is_sorted(order.begin(), order.end());
}

bool is_forest_by_definition(const SequencePlan& plan, const std::vector<int32_t>& selection) {
  return std::all_of(plan.documents.begin(), plan.documents.end(),
                     [&](const Document& document) { return is_forest_by_definition(document, selection.data()); });
}

/// A forest of each document with as many expanded entries as its rows need, any of them.
std::vector<int32_t> random_forest(const SequencePlan& plan, CaseGenerator& random) {
  std::vector<int32_t> selection;
  for (const Document& document : plan.documents) {
    const Pyramid& pyramid = document.pyramid;
    std::vector<std::pair<int, int64_t>> leaves;
    std::vector<std::pair<std::pair<int64_t, int>, int64_t>> rows;  // (end of window, level), flat entry
    const auto add = [&](int level, int64_t index) {
      leaves.emplace_back(level, index);
      rows.push_back(
          {{(index + 1) << pyramid.shift(level), level}, document.entry_begin + pyramid.entry_offset(level) + index});
    };
    for (int64_t index = 0; index < pyramid.num_coarse(); ++index) add(pyramid.num_levels - 1, index);
    while (static_cast<int64_t>(rows.size()) < document.num_rows) {
      const auto position = leaves.begin() + random.below(static_cast<int64_t>(leaves.size()));
      const auto [level, index] = *position;
      if (level == 0) continue;
      leaves.erase(position);
      for (int64_t child = 0; child < pyramid.window(1); ++child) add(level - 1, index * pyramid.window(1) + child);
    }
    std::sort(rows.begin(), rows.end());
    for (const auto& row : rows) selection.push_back(static_cast<int32_t>(row.second));
  }
  return selection;
}

/// One of the mistakes that a caller may make; some leave a forest.
void corrupt(const SequencePlan& plan, std::vector<int32_t>& selection, CaseGenerator& random) {
  const auto size = static_cast<int64_t>(selection.size());
  const int64_t a = random.below(size);
  const int64_t b = random.below(size);
  const auto begin = selection.begin() + std::min(a, b);
  const auto end = selection.begin() + std::max(a, b);
  switch (random.below(6)) {
    case 0:
      std::swap(selection[a], selection[b]);
      break;
    case 1:  // any entry, of any document, or none
      selection[a] = static_cast<int32_t>(random.below(plan.num_entries + 2) - 1);
      break;
    case 2:
      std::reverse(begin, end);
      break;
    case 3:
      std::rotate(begin, begin + random.below(end - begin + 1), end);
      break;
    case 4:
      std::sort(begin, end);
      break;
    default:
      selection[a] = selection[b];
  }
}

TEST(Forest, IsWhatTheDefinitionSaysOfRandomSelections) {
  CaseGenerator random(7);
  int forests = 0;
  int others = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const StageCase c = random.stage_case(120);
    const SequencePlan plan = c.plan();
    if (plan.num_entries > 4000) continue;
    std::vector<int32_t> selection = random_forest(plan, random);
    ASSERT_EQ(first_wrong_row(plan, selection.data()), kNoRow) << testing::PrintToString(c);
    for (int64_t i = 0; i <= random.below(3); ++i) corrupt(plan, selection, random);
    const int64_t wrong = first_wrong_row(plan, selection.data());
    ASSERT_EQ(wrong == kNoRow, is_forest_by_definition(plan, selection)) << testing::PrintToString(c);
    ++(wrong == kNoRow ? forests : others);
  }
  EXPECT_GT(forests, 100);
  EXPECT_GT(others, 1000);
}

/// Calls visit(selection) for every array of `rows` entries in [-1, num_entries].
template <typename Visit>
void for_each_array(int64_t rows, int64_t num_entries, const Visit& visit) {
  std::vector<int32_t> selection(static_cast<size_t>(rows), -1);
  while (true) {
    visit(selection);
    size_t row = 0;
    for (; row < selection.size() && selection[row] == num_entries; ++row) selection[row] = -1;
    if (row == selection.size()) return;
    ++selection[row];
  }
}

TEST(Forest, IsWhatTheDefinitionSaysOfEverySmallArray) {
  struct Small {
    int64_t num_levels, seq_len, topk, forests;
    std::vector<int64_t> cu_seqlens;
  };
  // One of three coarsest entries is expanded; the tokens alone, of one level, of a row and of documents that would not
  // get shorter.
  for (const Small& small : {Small{2, 6, 1, 3, {}}, Small{1, 4, 1, 1, {}}, Small{2, 4, 1, 1, {}}, Small{3, 3, 1, 1, {}},
                             Small{2, 4, 2, 1, {0, 2, 4}}}) {
    SelectionConfig config;
    config.num_levels = small.num_levels;
    config.pooling_factor = 2;
    config.topk = small.topk;
    config.tile_topk = 1;
    const SequencePlan plan = make_plan(config, small.seq_len, small.cu_seqlens);
    int64_t forests = 0;
    for_each_array(plan.gathered_len, plan.num_entries, [&](const std::vector<int32_t>& selection) {
      const bool is_forest = first_wrong_row(plan, selection.data()) == kNoRow;
      ASSERT_EQ(is_forest, is_forest_by_definition(plan, selection)) << testing::PrintToString(selection);
      if (is_forest) ++forests;
    });
    EXPECT_EQ(forests, small.forests);
  }
}

std::string complaint_of(const SequencePlan& plan, std::vector<int32_t> selection) {
  try {
    check_selection({selection.data(), &plan, 1, 1}, serial_for);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing is wrong";
}

TEST(Forest, MessagesSayWhatMayStandThere) {
  SelectionConfig config;
  config.num_levels = 3;
  config.pooling_factor = 2;
  config.topk = 1;
  const SequencePlan plan = make_plan(config, 8);  // entries 0-7, 8-11, 12-13
  const std::vector<int32_t> good{0, 1, 8, 9, 12, 13};
  const auto with = [&](size_t row, int32_t value) {
    std::vector<int32_t> wrong = good;
    wrong[row] = value;
    return complaint_of(plan, wrong);
  };
  const std::string end = "; the order of rows carries causality: pass what select returned";
  EXPECT_EQ(complaint_of(plan, good), "nothing is wrong");
  EXPECT_EQ(
      with(0, 1),
      "selection: (batch 0, KV head 0, row 0) is 1 (level 0, entry 1), but it must be a leaf that begins at token "
      "0: 12 (level 2, entry 0) or 8 (level 1, entry 0) or 0 (level 0, entry 0)" +
          end);
  EXPECT_EQ(with(2, 2),
            "selection: (batch 0, KV head 0, row 2) is 2 (level 0, entry 2), but after row 1, 1 (level 0, entry 1), it "
            "must be the summary 8 (level 1, entry 0)" +
                end);
  EXPECT_EQ(
      with(3, 10),
      "selection: (batch 0, KV head 0, row 3) is 10 (level 1, entry 2), but after row 2, 8 (level 1, entry 0), it "
      "must be a leaf that begins at token 2: 9 (level 1, entry 1) or 2 (level 0, entry 2)" +
          end);
  EXPECT_EQ(
      with(5, 4),
      "selection: (batch 0, KV head 0, row 5) is 4 (level 0, entry 4), but the rows end here, and the last must be "
      "13 (level 2, entry 1)" +
          end);
  EXPECT_EQ(
      complaint_of(plan, {12, 13, 0, 1, 8, 9}),
      "selection: (batch 0, KV head 0, row 2) is 0 (level 0, entry 0), but row 1 ends the sequence: fewer entries "
      "are expanded than its 6 rows need" +
          end);
  EXPECT_THAT(with(4, 14), testing::HasSubstr("row 4) is 14; rows [0, 6) belong to document 0"));
}

}  // namespace
}  // namespace lighthouse
