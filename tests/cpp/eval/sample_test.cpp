#include "eval/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace lighthouse {
namespace {
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SpreadSample, TakesOneOfEveryStretch) {
  for (const auto& [available, wanted] : {std::pair<int64_t, int64_t>{812, 64}, {100, 7}, {10, 9}, {1000003, 3}}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      const std::vector<int64_t> sample = spread_sample(available, wanted, seed);
      ASSERT_EQ(sample.size(), static_cast<size_t>(wanted));
      int64_t end = 0;
      for (int64_t part = 0; part < wanted; ++part) {  // the first available % wanted stretches have one index more
        const int64_t begin = end;
        end += available / wanted + (part < available % wanted ? 1 : 0);
        EXPECT_GE(sample[static_cast<size_t>(part)], begin) << available << ' ' << wanted;
        EXPECT_LT(sample[static_cast<size_t>(part)], end) << available << ' ' << wanted;
      }
      EXPECT_EQ(end, available);
      EXPECT_EQ(std::set(sample.begin(), sample.end()).size(), sample.size());
      EXPECT_LT(sample.back(), available);
    }
  }
}

TEST(SpreadSample, ReachesEverySequenceWithSomeSeed) {
  std::set<int64_t> met;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    for (const int64_t index : spread_sample(50, 4, seed)) met.insert(index);
  }
  EXPECT_EQ(met.size(), 50U);
}

TEST(SpreadSample, IsAFunctionOfTheSeed) {
  EXPECT_EQ(spread_sample(1000, 20, 5), spread_sample(1000, 20, 5));
  EXPECT_NE(spread_sample(1000, 20, 5), spread_sample(1000, 20, 6));
}

TEST(SpreadSample, TakesAllWhenThereAreNoMore) {
  EXPECT_THAT(spread_sample(3, 3, 1), ElementsAre(0, 1, 2));
  EXPECT_THAT(spread_sample(3, 64, 1), ElementsAre(0, 1, 2));
  EXPECT_THAT(spread_sample(0, 64, 1), IsEmpty());
}

}  // namespace
}  // namespace lighthouse
