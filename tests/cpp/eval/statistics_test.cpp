#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

// To four digits, from Newcombe, "Two-sided confidence intervals for the single proportion", 1998, method 3.
TEST(Wilson, HasThePublishedIntervals) {
  struct Case {
    int64_t hits, trials;
    double low, high;
  };
  for (const auto& [hits, trials, low, high] : {Case{81, 263, 0.2553, 0.3662}, Case{15, 148, 0.0624, 0.1605},
                                                Case{0, 20, 0.0, 0.1611}, Case{1, 29, 0.0061, 0.1718}}) {
    const Interval interval = wilson_interval(hits, trials);
    EXPECT_NEAR(interval.low, low, 5e-5) << hits << " of " << trials;
    EXPECT_NEAR(interval.high, high, 5e-5) << hits << " of " << trials;
    const Interval misses = wilson_interval(trials - hits, trials);
    EXPECT_NEAR(misses.low, 1 - interval.high, 1e-12);
  }
  EXPECT_THROW(wilson_interval(0, 0), InvalidArgument);
  EXPECT_THROW(wilson_interval(3, 2), InvalidArgument);
}

TEST(Mean, OfEqualPartsHasTheUsualStandardError) {
  const std::vector<PartialSum> parts = {{10, 5}, {20, 5}, {30, 5}, {40, 5}};  // means 2, 4, 6, 8
  const Mean mean = mean_of(parts);
  EXPECT_DOUBLE_EQ(mean.value, 5);
  EXPECT_DOUBLE_EQ(mean.standard_error, std::sqrt(20.0 / 3) / 2);
  EXPECT_EQ(mean.count, 20);
}

TEST(Mean, WeighsPartsByTheirValues) {
  const Mean mean = mean_of(std::vector<PartialSum>{{2, 1}, {12, 3}, {0, 0}});
  EXPECT_DOUBLE_EQ(mean.value, 3.5);
  // e = 2 - 3.5 and 12 - 10.5; the empty part is none.
  EXPECT_DOUBLE_EQ(mean.standard_error, std::sqrt(2.0 * (2.25 + 2.25)) / 4);
}

TEST(Mean, SaysWhatItDoesNotKnow) {
  EXPECT_TRUE(std::isnan(mean_of({}).value));
  EXPECT_TRUE(std::isnan(mean_of(std::vector<PartialSum>{{0, 0}}).value));
  const Mean one = mean_of(std::vector<PartialSum>{{6, 2}});
  EXPECT_EQ(one.value, 3);
  EXPECT_TRUE(std::isnan(one.standard_error));
  EXPECT_TRUE(finite(one.standard_error).is_null());
  EXPECT_EQ(finite(3), 3);
}

}  // namespace
}  // namespace lighthouse
