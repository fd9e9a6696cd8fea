// What plans of attention for packed documents are made for.
#include "ops/document_sizes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <tuple>

namespace lighthouse::ops_test {
namespace {

TEST(DocumentSizes, HoldTheDocumentsAndLittleMore) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int64_t> num_rows;
    const size_t count = 1 + random() % 300;
    while (num_rows.size() < count) num_rows.push_back(static_cast<int64_t>(random() % (1u << random() % 17)));
    int64_t present = 0, longest = 0, total = 0;
    for (const int64_t rows : num_rows) {
      present += rows > 0;
      longest = std::max(longest, rows);
      total += rows;
    }
    const ops::DocumentSizes sizes = ops::DocumentSizes::of(num_rows);
    EXPECT_GE(sizes.count, present);
    EXPECT_LT(sizes.count, 2 * std::max<int64_t>(present, 1));
    EXPECT_GE(sizes.longest, longest);
    EXPECT_LT(sizes.longest, std::max<int64_t>(2 * longest, 129));
    EXPECT_GE(sizes.total, total);
    EXPECT_LE(sizes.total, (total + 128) * 5 / 4);
  }
}

TEST(DocumentSizes, AreFewForRowsOfOneLength) {
  std::mt19937 random(1);
  std::lognormal_distribution<double> lengths(std::log(2000.0), 1.2);
  std::set<std::tuple<int64_t, int64_t, int64_t>> seen;
  for (int row = 0; row < 2000; ++row) {
    std::vector<int64_t> num_rows;
    for (int64_t left = 98'304; left > 0; left -= num_rows.back()) {
      num_rows.push_back(std::min(left, 1 + static_cast<int64_t>(lengths(random))));
    }
    const ops::DocumentSizes sizes = ops::DocumentSizes::of(num_rows);
    seen.insert({sizes.count, sizes.longest, sizes.total});
  }
  EXPECT_LE(seen.size(), 16u);
}

TEST(DocumentSizes, OfNoRowsAreThoseOfATile) {
  const ops::DocumentSizes sizes = ops::DocumentSizes::of({0, 0});
  EXPECT_EQ(sizes.count, 1);
  EXPECT_EQ(sizes.longest, 128);
  EXPECT_EQ(sizes.total, 128);
}

TEST(DocumentSizes, FavourCudnnForLongDocuments) {
  const auto favours = [](int64_t longest, int64_t others, int64_t rows, int64_t num_channels = 1024) {
    std::vector<int64_t> num_rows(static_cast<size_t>(others), rows);
    num_rows.push_back(longest);
    return ops::DocumentSizes::favour_cudnn(num_rows, num_channels);
  };
  EXPECT_TRUE(favours(3072, 31, 3072));
  EXPECT_TRUE(favours(1024, 31, 1024));
  EXPECT_FALSE(favours(1023, 31, 1023));
  EXPECT_TRUE(favours(2048, 3, 2048));
  EXPECT_FALSE(favours(1024, 7, 1024));  // less work than a few launches take
  EXPECT_FALSE(favours(2048, 3, 2048, 512));
  EXPECT_TRUE(favours(4096, 1, 4096, 512));
  EXPECT_TRUE(favours(65'536, 64, 512));
  EXPECT_FALSE(favours(32'768, 1024, 64));  // tiles of 2,048 documents of 32,768 rows
  EXPECT_FALSE(favours(0, 0, 0, 0));
}

}  // namespace
}  // namespace lighthouse::ops_test
