#include "data/shuffle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace lighthouse {
namespace {

std::vector<int64_t> permutation(int64_t size, int64_t seed, int64_t epoch) {
  const Shuffle shuffle(size, seed, epoch);
  std::vector<int64_t> values;
  for (int64_t index = 0; index < size; ++index) values.push_back(shuffle(index));
  return values;
}

TEST(Shuffle, IsAPermutation) {
  for (const int64_t size : {1, 2, 3, 4, 5, 7, 16, 17, 255, 256, 257, 1000, 4096, 65'537}) {
    std::vector<int64_t> values = permutation(size, 1, 2);
    std::sort(values.begin(), values.end());
    for (int64_t index = 0; index < size; ++index) ASSERT_EQ(values[static_cast<size_t>(index)], index) << size;
  }
}

TEST(Shuffle, StaysInsideHugeRanges) {
  for (const int64_t size : {(int64_t{1} << 40) + 1, (int64_t{1} << 61), INT64_MAX}) {
    const Shuffle shuffle(size, 3, 4);
    for (int64_t index = size - 100; index < size; ++index) {
      EXPECT_GE(shuffle(index), 0);
      EXPECT_LT(shuffle(index), size);
    }
  }
}

TEST(Shuffle, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(permutation(1000, 1, 2), permutation(1000, 1, 2));
  EXPECT_NE(permutation(1000, 1, 2), permutation(1000, 1, 3));
  EXPECT_NE(permutation(1000, 1, 2), permutation(1000, 2, 2));
  EXPECT_NE(permutation(1000, 1, 2), permutation(1000, 2, 1));
}

// Resumed runs rely on it: the order must never change with a new version of this program.
TEST(Shuffle, OrderIsFixedForever) {
  EXPECT_THAT(permutation(10, 1, 0), ::testing::ElementsAre(9, 6, 8, 7, 3, 5, 1, 0, 2, 4));
  EXPECT_THAT(permutation(10, 1, 1), ::testing::ElementsAre(0, 5, 6, 1, 7, 8, 3, 2, 9, 4));
}

// 24,000 draws over the 24 orders of 4 items: chi-squared with 23 degrees of freedom exceeds 60 with probability 4e-5.
TEST(Shuffle, DrawsAllOrdersOfAFewEvenly) {
  std::map<std::vector<int64_t>, int> counts;
  constexpr int kDraws = 24'000;
  for (int64_t epoch = 0; epoch < kDraws; ++epoch) ++counts[permutation(4, 5, epoch)];
  ASSERT_EQ(counts.size(), 24U);
  double chi_squared = 0;
  for (const auto& [order, count] : counts) chi_squared += std::pow(count - kDraws / 24.0, 2) / (kDraws / 24.0);
  EXPECT_LT(chi_squared, 60);
}

}  // namespace
}  // namespace lighthouse
