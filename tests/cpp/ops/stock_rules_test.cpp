// What stock attention takes, as rules on numbers; and that grouped heads of 16 bits err as repeated ones do.
#include <ATen/TensorOperators.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/stock_rules.h"
#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

using Strides = std::array<int64_t, 4>;

TEST(StockRules, RowsStartAtMultiplesOf16Bytes) {
  EXPECT_TRUE(ops::rows_start_aligned(Strides{8192, 4096, 32, 1}, 4));
  EXPECT_TRUE(ops::rows_start_aligned(Strides{0, 0, 4, 1}, 4));
  EXPECT_FALSE(ops::rows_start_aligned(Strides{8192, 4096, 33, 1}, 4));
  EXPECT_FALSE(ops::rows_start_aligned(Strides{8192, 33, 64, 1}, 4)) << "of a single head too";
  EXPECT_FALSE(ops::rows_start_aligned(Strides{8192, 4096, 4, 1}, 2));
}

TEST(StockRules, ChannelsFillMultiplesOf16Bytes) {
  for (const auto& [head_dim, missing] : std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {3, 1}, {4, 0}, {36, 0}}) {
    EXPECT_EQ(ops::missing_channels(head_dim, 4), missing);
  }
  for (const auto& [head_dim, missing] : std::vector<std::pair<int64_t, int64_t>>{{1, 7}, {8, 0}, {36, 4}, {250, 6}}) {
    EXPECT_EQ(ops::missing_channels(head_dim, 2), missing);
  }
}

TEST(StockRules, WhoMayShareKeys) {
  EXPECT_TRUE(ops::may_share_keys(true, true, 256));
  EXPECT_FALSE(ops::may_share_keys(true, true, 264));
  EXPECT_FALSE(ops::may_share_keys(true, false, 64));
  EXPECT_TRUE(ops::may_share_keys(false, false, 64));
  EXPECT_FALSE(ops::may_share_keys(false, true, 64));
}

at::Tensor gradient_of_keys(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& dout) {
  const at::Tensor keys = k.detach().requires_grad_();
  attention(q, keys, keys).backward(dout);
  return keys.grad();
}

TEST(StockAttention, GroupedHeadsErrAsRepeatedOnes) {
  constexpr int64_t kHeads = 32;
  const InnerAttention repeated = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return at::scaled_dot_product_attention(q, k.expand({-1, kHeads, -1, -1}), v.expand({-1, kHeads, -1, -1}), {}, 0.0,
                                            true);
  };
  const InnerAttention ours = [](const auto& q, const auto& k, const auto& v) { return causal_attention(q, k, v); };
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor q = normal({1, kHeads, 128, 16}, 1).to(dtype);
    const at::Tensor k = normal({1, 1, 128, 16}, 2).to(dtype);
    const at::Tensor dout = normal({1, kHeads, 128, 16}, 3).to(dtype);
    const at::Tensor exact = gradient_of_keys(repeated, q.to(at::kDouble), k.to(at::kDouble), dout.to(at::kDouble));
    const auto error = [&](const InnerAttention& attention) {
      return (gradient_of_keys(attention, q, k, dout).to(at::kDouble) - exact).norm().item<double>();
    };
    EXPECT_LE(error(ours), 1.05 * error(repeated)) << dtype;
  }
}

}  // namespace
}  // namespace lighthouse::ops_test
