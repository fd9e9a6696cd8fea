// What is changed, and what must not see it.
#include <gmock/gmock.h>

#include <set>

#include "audit/change.h"
#include "cpp/audit/audit_support.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

using ::testing::ElementsAreArray;

std::vector<int64_t> unseen(const Sequence& sequence, int64_t token, Change change) {
  const at::Tensor found = unseen_outputs(sequence, token, change).nonzero().flatten();
  return {found.const_data_ptr<int64_t>(), found.const_data_ptr<int64_t>() + found.numel()};
}

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> values;
  for (int64_t i = begin; i < end; ++i) values.push_back(i);
  return values;
}

TEST(ChangedTokens, OneOfEveryEqualPart) {
  for (const int64_t count : {1, 3, 7, 40}) {
    const std::vector<int64_t> tokens = changed_tokens(41, count, 5, 0);
    ASSERT_EQ(static_cast<int64_t>(tokens.size()), count);
    for (int64_t part = 0; part < count; ++part) {
      const int64_t token = tokens[static_cast<size_t>(part)];
      EXPECT_GE(token, 1 + 40 * part / count);
      EXPECT_LT(token, 1 + 40 * (part + 1) / count);
    }
  }
  EXPECT_THAT(changed_tokens(41, 100, 5, 0), ElementsAreArray(range(1, 41)));
  EXPECT_THAT(changed_tokens(1, 4, 5, 0), ElementsAreArray(range(0, 0)));
}

TEST(ChangedTokens, FollowFromSeedAndSequence) {
  const std::vector<int64_t> tokens = changed_tokens(1000, 10, 5, 0);
  EXPECT_EQ(changed_tokens(1000, 10, 5, 0), tokens);
  EXPECT_NE(changed_tokens(1000, 10, 6, 0), tokens);
  EXPECT_NE(changed_tokens(1000, 10, 5, 1), tokens);
}

TEST(Changed, OneTokenOrAllLaterOnes) {
  const Sequence sequence = random_sequence(20, 1);
  const Sequence donor = random_sequence(20, 2);
  for (int64_t token = 0; token < 20; ++token) {
    const Sequence one = changed(sequence, donor, token, Change::kOneToken);
    std::set<int64_t> differences;
    for (size_t i = 0; i < 20; ++i) {
      if (one.inputs[i] != sequence.inputs[i]) differences.insert(static_cast<int64_t>(i));
    }
    EXPECT_EQ(differences, std::set<int64_t>{token});
    EXPECT_EQ(one.targets, sequence.targets);
    const Sequence all = changed(sequence, donor, token, Change::kAllLater);
    for (size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(all.inputs[i], (static_cast<int64_t>(i) < token ? sequence : donor).inputs[i]);
    }
  }
}

TEST(Changed, TextOfOneTokenCannotBeChanged) {
  Sequence sequence = random_sequence(20, 1);
  sequence.inputs.assign(20, 7);
  EXPECT_THROW(changed(sequence, sequence, 3, Change::kOneToken), InvalidArgument);
}

TEST(Unseen, EarlierOutputsAndOtherDocuments) {
  const Sequence plain = random_sequence(20, 1);
  EXPECT_THAT(unseen(plain, 6, Change::kOneToken), ElementsAreArray(range(0, 6)));
  EXPECT_THAT(unseen(plain, 6, Change::kAllLater), ElementsAreArray(range(0, 6)));
  const Sequence packed = random_sequence(20, 1, {0, 5, 5, 11, 20});
  std::vector<int64_t> all_but = range(0, 6);
  for (const int64_t token : range(11, 20)) all_but.push_back(token);
  EXPECT_THAT(unseen(packed, 6, Change::kOneToken), ElementsAreArray(all_but));
  EXPECT_THAT(unseen(packed, 6, Change::kAllLater), ElementsAreArray(range(0, 6)));
  EXPECT_EQ(document_of(packed, 5).begin, 5);
  EXPECT_EQ(document_of(packed, 5).end, 11);
  EXPECT_EQ(document_of(packed, 19).end, 20);
}

}  // namespace
}  // namespace lighthouse
