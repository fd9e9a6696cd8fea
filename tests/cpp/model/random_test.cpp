#include "model/random.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lighthouse {
namespace {

// Stored values: other bits would be other initial weights and other samples than those of earlier versions.
TEST(Random, BitsAreFixed) {
  EXPECT_EQ(random_bits(0, 0), 0xE220A8397B1DCDAFU);  // splitmix64's first number for seed 0
  EXPECT_EQ(random_stream(1, "model.embed_tokens.weight"), 12682896005084139681U);
  EXPECT_EQ(random_normal(random_stream(1, "model.embed_tokens.weight"), 0), -100585 * 0x1p-16);
}

TEST(Random, StreamsDifferBySeedAndName) {
  EXPECT_NE(random_stream(1, "a"), random_stream(2, "a"));
  EXPECT_NE(random_stream(1, "a"), random_stream(1, "b"));
}

// Moments of n independent numbers scatter by sqrt(variance of the power / n); five times that is one in a million.
TEST(Random, NormalHasTheMomentsOfANormal) {
  constexpr int kCount = 1'000'000;
  const uint64_t stream = random_stream(3, "moments");
  double sum = 0;
  double squares = 0;
  double fourth = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double x = random_normal(stream, i);
    ASSERT_LE(std::abs(x), 6);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3 - 1.2 / 12, 5 * std::sqrt(96.0 / kCount));  // excess kurtosis -6/5 over 12 terms
}

TEST(Random, UniformFillsTheUnitInterval) {
  const uint64_t stream = random_stream(3, "uniform");
  int counts[16] = {};
  for (uint64_t i = 0; i < 16000; ++i) ++counts[static_cast<int>(16 * random_uniform(stream, i))];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 5 * std::sqrt(1000));
}

}  // namespace
}  // namespace lighthouse
