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

}  // namespace
}  // namespace lighthouse::ops_test
