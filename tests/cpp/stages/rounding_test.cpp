// The 16-bit conversions of the stages against plain scalar ones, seen through gather: the mean of two elements is one
// fp32 sum, halved and rounded.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "lighthouse/gather.h"
#include "support/rounding.h"

namespace lighthouse {
namespace {

using test_support::decode_half;
using test_support::encode_half;
using test_support::Format;
using test_support::round_to;

struct HalfType {
  DType dtype;
  Format format;
};
constexpr HalfType kBFloat16{DType::kBFloat16, test_support::kBFloat16Format};
constexpr HalfType kFloat16{DType::kFloat16, test_support::kFloat16Format};

/// Means of `num_levels` - 1 = 1 pairs, or with num_levels 1 the elements themselves, of tokens [N, D] of one head.
std::vector<uint16_t> gather_coarsest(DType dtype, int64_t num_levels, int64_t head_dim,
                                      const std::vector<uint16_t>& tokens) {
  const auto seq_len = static_cast<int64_t>(tokens.size()) / head_dim;
  SelectionConfig config;
  config.num_levels = num_levels;
  config.pooling_factor = 2;
  const SequencePlan plan = make_plan(config, seq_len);
  // Any list of entries will do for a gather; what stands beyond the first num_coarse rows is not looked at.
  const int64_t num_coarse = plan.documents[0].pyramid.num_coarse();
  std::vector<int32_t> selection(plan.gathered_len);
  for (int64_t row = 0; row < num_coarse; ++row) {
    selection[row] =
        static_cast<int32_t>(plan.documents[0].pyramid.entry_offset(static_cast<int>(num_levels) - 1) + row);
  }
  std::vector<uint16_t> rows(plan.gathered_len * head_dim);
  std::vector<uint16_t> unused(rows);
  const ConstView in{tokens.data(), 0, head_dim, 0};
  gather_rows({in, in, in, View{rows.data(), 0, head_dim, 0}, View{unused.data(), 0, head_dim, 0},
               View{unused.data(), 0, head_dim, 0}, selection.data(), &plan, dtype, 1, 1, 1, head_dim},
              serial_for);
  rows.resize(num_coarse * head_dim);
  return rows;
}

/// Bits that a stage must write for a value; a NaN only has to be one, and quiet.
void expect_bits(const HalfType& half, uint16_t actual, double expected, const char* what, uint32_t index) {
  if (std::isnan(expected)) {
    ASSERT_TRUE(std::isnan(decode_half(half.format, actual))) << what << " " << index;
    ASSERT_NE(actual & (1 << (half.format.mantissa_bits - 1)), 0) << what << " " << index << " is a signalling NaN";
  } else {
    ASSERT_EQ(actual, encode_half(half.format, expected)) << what << " " << index << ": " << expected;
  }
}

void expect_every_pattern_kept(const HalfType& half) {
  for (const int64_t head_dim : {64, 8, 5}) {
    std::vector<uint16_t> tokens((65536 + head_dim - 1) / head_dim * head_dim);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint16_t>(i);
    const std::vector<uint16_t> rows = gather_coarsest(half.dtype, 1, head_dim, tokens);
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      // An empty sum is +0, and so is that of +0 and -0.
      expect_bits(half, rows[bits], decode_half(half.format, static_cast<uint16_t>(bits)) + 0.0, "pattern", bits);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

void expect_means_rounded_once(const HalfType& half) {
  std::mt19937_64 random(3);
  for (const int64_t head_dim : {64, 24, 7}) {
    const int64_t seq_len = 20000;
    std::vector<uint16_t> tokens(seq_len * head_dim);
    for (uint16_t& bits : tokens) bits = static_cast<uint16_t>(random());
    // Half of the pairs are of similar size: neighbours of neighbours, so that ties are common.
    for (int64_t token = 1; token < seq_len; token += 4) {
      for (int64_t c = 0; c < head_dim; ++c) {
        tokens[token * head_dim + c] = static_cast<uint16_t>(tokens[(token - 1) * head_dim + c] + random() % 8);
      }
    }
    const std::vector<uint16_t> rows = gather_coarsest(half.dtype, 2, head_dim, tokens);
    for (int64_t i = 0; i < seq_len / 2 * head_dim; ++i) {
      const int64_t first = i / head_dim * 2 * head_dim + i % head_dim;
      const auto a = static_cast<float>(decode_half(half.format, tokens[first]));
      const auto b = static_cast<float>(decode_half(half.format, tokens[first + head_dim]));
      const float sum = a + b + 0.0F;
      expect_bits(half, rows[i], round_to(half.format, static_cast<double>(sum * 0.5F)), "mean",
                  static_cast<uint32_t>(i));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Rounding, EveryBFloat16IsKept) { expect_every_pattern_kept(kBFloat16); }
TEST(Rounding, EveryFloat16IsKept) { expect_every_pattern_kept(kFloat16); }
TEST(Rounding, BFloat16MeansAreRoundedOnceToEven) { expect_means_rounded_once(kBFloat16); }
TEST(Rounding, Float16MeansAreRoundedOnceToEven) { expect_means_rounded_once(kFloat16); }

/// The plain conversions themselves, at values that can be checked by hand.
TEST(Rounding, PlainConversionsAreRight) {
  EXPECT_EQ(encode_half(kBFloat16.format, 1.0), 0x3f80);
  EXPECT_EQ(encode_half(kFloat16.format, 1.0), 0x3c00);
  EXPECT_EQ(encode_half(kFloat16.format, 65504.0), 0x7bff);
  EXPECT_EQ(encode_half(kFloat16.format, std::ldexp(1.0, -24)), 0x0001);
  EXPECT_EQ(decode_half(kFloat16.format, 0x0400), std::ldexp(1.0, -14));
  EXPECT_EQ(decode_half(kFloat16.format, 0xfc00), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(round_to(kFloat16.format, 65519.0), 65504.0);
  EXPECT_EQ(round_to(kFloat16.format, 65520.0), std::numeric_limits<double>::infinity());
  EXPECT_EQ(round_to(kBFloat16.format, 1.0 + std::ldexp(1.0, -8)), 1.0) << "a tie goes to the even neighbour";
  EXPECT_EQ(round_to(kBFloat16.format, 1.0 + 3 * std::ldexp(1.0, -8)), 1.0 + std::ldexp(1.0, -6));
  for (const uint32_t bits : {0x0001U, 0x007fU, 0x0080U, 0x3f81U, 0x7f7fU, 0x8001U, 0xc123U}) {
    EXPECT_EQ(decode_half(kBFloat16.format, static_cast<uint16_t>(bits)), std::bit_cast<float>(bits << 16));
  }
}

}  // namespace
}  // namespace lighthouse
