// Scores against the fp64 reference.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

reference::Scores reference_scores(const OpsCase& c, const Inputs& inputs) {
  const reference::Tensor q = to_reference(inputs.q);
  const reference::Tensor k = to_reference(inputs.k);
  const reference::Tensor v = to_reference(inputs.v);
  if (c.score.scorer == Scorer::kNorm) return reference::norm_scores(q, k);
  if (c.score.scorer == Scorer::kDilated) return reference::dilated_scores(q, k, v, c.score.dilation, c.sequence());
  return reference::gla_scores(q, k, v, to_reference(inputs.gate), c.score.dilation, c.sequence());
}

/// [B, N, H_kv, 1] as [B, H_kv, N].
at::Tensor by_head(const reference::Tensor& scores) { return from_reference(scores).squeeze(-1).transpose(1, 2); }

class ScorerTest : public testing::TestWithParam<std::tuple<Scorer, int64_t, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(Cases, ScorerTest,
                         testing::Combine(testing::Values(Scorer::kNorm, Scorer::kDilated, Scorer::kGla),
                                          testing::Values(1, 3, 4, 200),  // dilation; 200 is longer than the row
                                          testing::Values(1, 2, 4)));     // query heads of a KV head

void expect_reference_scores(const OpsCase& c) {
  const Inputs inputs = make_inputs(c, at::kDouble);
  const AttentionOptions options = options_of(c, inputs);
  const auto [s_qk, s_kq] = token_scores(inputs.q, inputs.k, inputs.v, c.score, options.gate, c.offsets());
  const reference::Scores exact = reference_scores(c, inputs);
  // Norms below 16, computed in fp64 and rounded to fp32 once; gla reads its gate in fp32, of which up to N add up.
  const double bound = 16 * std::numeric_limits<float>::epsilon();
  ASSERT_EQ(s_qk.scalar_type(), at::kFloat);
  EXPECT_LE(max_error(s_qk, by_head(exact.qk)), bound) << c.name;
  EXPECT_LE(max_error(s_kq, by_head(exact.kq)), bound) << c.name;
}

TEST_P(ScorerTest, EqualsTheReference) {
  const auto& [scorer, dilation, group] = GetParam();
  OpsCase c{"unpacked", 2, 101, 2 * group, 2, 8, make_config(4), {scorer, dilation}, {}};
  expect_reference_scores(c);
  c.batch = 1;
  c.cu_seqlens = {0, 2, 2, 50, 51, 101};
  c.name = "packed";
  expect_reference_scores(c);
}

TEST(ScorerTest, TakesTheGateInAnyFloatingDtype) {
  const OpsCase c{"gla", 1, 40, 2, 2, 4, make_config(4), scored_by(Scorer::kGla, 2), {}};
  const Inputs inputs = make_inputs(c, at::kFloat);
  const at::Tensor gate = inputs.gate.to(at::kBFloat16);
  const auto [a_qk, a_kq] = token_scores(inputs.q, inputs.k, inputs.v, c.score, gate);
  const auto [b_qk, b_kq] = token_scores(inputs.q, inputs.k, inputs.v, c.score, gate.to(at::kFloat));
  EXPECT_TRUE(same_bits(a_qk, b_qk));
  EXPECT_TRUE(same_bits(a_kq, b_kq));
}

TEST(ScorerTest, ANaNHeadLosesToTheOthersOfItsGroup) {
  const OpsCase c{"nan", 1, 16, 4, 2, 4, make_config(2, 2, 2), scored_by(Scorer::kDilated, 2), {}};
  Inputs inputs = make_inputs(c, at::kFloat);
  inputs.q[0][6][1].fill_(std::numeric_limits<double>::quiet_NaN());
  for (const Scorer scorer : {Scorer::kNorm, Scorer::kDilated}) {
    const auto [s_qk, s_kq] = token_scores(inputs.q, inputs.k, inputs.v, {scorer, 2});
    EXPECT_FALSE(s_qk.isnan().any().item<bool>()) << scorer;  // head 0 of the group has a score
    EXPECT_EQ(s_qk.isnan().sum().item<int64_t>() + s_kq.isnan().sum().item<int64_t>(), 0) << scorer;
  }
}

}  // namespace
}  // namespace lighthouse::ops_test
