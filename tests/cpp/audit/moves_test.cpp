// What the audit counts, on models whose look-ahead is known.
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "audit/audit.h"
#include "cpp/audit/audit_support.h"

namespace lighthouse {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Moves, NoneOfACausalModel) {
  const std::vector<Sequence> text = random_text(3, 40);
  for (const Change change : {Change::kOneToken, Change::kAllLater}) {
    const Moves moves = measure_moves(looks_ahead(1, 0), text, change, {.changes_per_sequence = 5});
    EXPECT_EQ(moves.num_changes, 15);
    EXPECT_GT(moves.num_outputs, 15);
    EXPECT_EQ(moves.num_moved, 0);
    EXPECT_EQ(moves.max_delta, 0);
  }
}

// With a quarter of a token of at most 30, sums are exact.
TEST(Moves, OfAModelThatLooksAheadAreCountedAndPlaced) {
  const std::vector<Sequence> text = random_text(2, 40);
  const AuditOptions options{.changes_per_sequence = 4};
  const Moves moves = measure_moves(looks_ahead(3, 0.25), text, Change::kOneToken, options);
  std::vector<double> deltas;
  int64_t num_outputs = 0;
  for (size_t i = 0; i < 2; ++i) {
    for (const int64_t token : changed_tokens(40, 4, options.seed, static_cast<int64_t>(i))) {
      num_outputs += token;
      if (token < 3) continue;  // no output stands three places before it
      const Sequence other = changed(text[i], text[1 - i], token, Change::kOneToken);
      const auto at = static_cast<size_t>(token);
      deltas.push_back(0.25 * std::abs(static_cast<double>(other.inputs[at] - text[i].inputs[at])));
    }
  }
  ASSERT_GE(deltas.size(), 6U);
  std::sort(deltas.begin(), deltas.end());
  EXPECT_EQ(moves.num_outputs, num_outputs);
  EXPECT_EQ(moves.num_moved, static_cast<int64_t>(deltas.size()));
  EXPECT_EQ(moves.max_delta, deltas.back());
  EXPECT_EQ(moves.median_delta, deltas[(deltas.size() - 1) / 2]);
  EXPECT_EQ(moves.max_loss, 2 * deltas.back());
  EXPECT_EQ(moves.max_distance, 3);
  EXPECT_EQ(moves.median_distance, 3);
  EXPECT_EQ(moves.worst.changed - moves.worst.output, 3);
  const std::optional<std::string> text_of =
      violation({.replayed = {}, .one_token = moves, .all_later = {}, .dense = {}});
  ASSERT_TRUE(text_of);
  EXPECT_THAT(*text_of, HasSubstr(to_string(moves.worst)));
}

TEST(Moves, AChangeThatRoundingHidesFromTheValueCounts) {
  const at::Tensor unseen = at::full({1}, true);
  const auto outputs = [](double value) { return Outputs{at::full({1, 1}, value), at::full({1}, 0.0)}; };
  MoveCounter counter;
  counter.add(outputs(0.0), outputs(-0.0), unseen, 0, 1);
  EXPECT_EQ(counter.total().num_moved, 1);
  EXPECT_EQ(counter.total().max_delta, 0);
}

TEST(Moves, ToWhatIsNoNumberAreInfinite) {
  const at::Tensor unseen = at::full({2}, true);
  const Outputs before{at::full({2, 1}, 1.0), at::full({2}, 1.0)};
  MoveCounter counter;
  counter.add(before, {at::full({2, 1}, kNan), at::full({2}, kNan)}, unseen, 0, 2);
  EXPECT_EQ(counter.total().num_moved, 2);
  EXPECT_EQ(counter.total().max_delta, kInfinity);
  EXPECT_EQ(counter.total().max_loss, kInfinity);
}

TEST(Moves, OfAModelWithoutFiniteOutputsAreRefused) {
  const at::Tensor unseen = at::full({3}, true);
  Outputs before{at::full({3, 2}, 1.0), at::full({3}, 1.0)};
  before.hidden[2][1].fill_(kNan);
  MoveCounter counter;
  try {
    counter.add(before, before, unseen, 7, 2);
    FAIL() << "accepted";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("token 2 of sequence 7"));
  }
}

TEST(LookaheadMeter, PairsLossesByDistanceToTheCut) {
  Sequence sequence = random_sequence(40, 1);
  sequence.targets[29] = kIgnoredTarget;
  LookaheadMeter meter;
  // Losses of 1 with the own continuation. With the other: 1 + d at d tokens before a cut at 32.
  const at::Tensor own = at::full({40}, 1.0);
  own[29].fill_(0);
  for (const int64_t index : {0, 1}) {
    at::Tensor other = own.clone();
    for (int64_t token = 0; token < 32; ++token) {
      if (token != 29) other[token].add_(static_cast<double>((index + 1) * (32 - token)));
    }
    meter.add(sequence, index, 32, own, other);
  }
  const Lookahead result = meter.result();
  EXPECT_DOUBLE_EQ(result.loss, 1);
  ASSERT_EQ(result.by_distance.size(), 4U);
  const auto expect = [](const SequenceMean& mean, double first, int64_t num_targets) {  // the second is twice that
    EXPECT_DOUBLE_EQ(mean.mean, 1.5 * first);
    EXPECT_DOUBLE_EQ(mean.standard_error, std::abs(first) / 2);
    EXPECT_EQ(mean.num_targets, 2 * num_targets);
  };
  expect(result.by_distance[0].difference, -1, 1);
  expect(result.by_distance[1].difference, -(16 * 17 / 2.0 - 1 - 3) / 14, 14);
  expect(result.by_distance[2].difference, -(32 * 33 / 2.0 - 16 * 17 / 2.0) / 16, 16);
  expect(result.difference, -(32 * 33 / 2.0 - 3) / 31, 31);
  EXPECT_EQ(result.by_distance[3].difference.num_targets, 0);
}

TEST(LookaheadMeter, ReadsTheDocumentOfTheCutOnly) {
  const Sequence packed = random_sequence(40, 1, {0, 10, 40});
  LookaheadMeter meter;
  meter.add(packed, 0, 14, at::full({40}, 1.0), at::full({40}, 3.0));
  meter.add(packed, 1, 10, at::full({40}, 1.0), at::full({40}, 3.0));  // nothing of it stands before the cut
  const Lookahead result = meter.result();
  EXPECT_EQ(result.difference.num_targets, 4);
  EXPECT_DOUBLE_EQ(result.difference.mean, -2);
  EXPECT_TRUE(std::isnan(result.difference.standard_error));
  EXPECT_EQ(result.by_distance[1].difference.num_targets, 3);
}

}  // namespace
}  // namespace lighthouse
