// A gathering carries the plan that it follows: one for all calls of a pass, forward and back.
#include "ops/gathering.h"

#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

calls::SharedPlan plan_of(const OpsCase& c) {
  return calls::share_plan("test", c.config, c.seq_len, c.batch, calls::optional_offsets(c.cu_seqlens));
}

class GatheringTest : public testing::TestWithParam<OpsCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, GatheringTest, testing::ValuesIn(small_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(GatheringTest, OnePlanServesAPassForwardAndBack) {
  const OpsCase& c = GetParam();
  const Inputs inputs = make_inputs(c, at::kFloat);
  const AttentionOptions options = repeatable(options_of(c, inputs));
  const Results expected = results_of(inputs, options);
  const calls::SharedPlan plan = plan_of(c);
  for (int pass = 0; pass < 2; ++pass) {
    const Results results = results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      const ops::GatheredRows rows = ops::select_and_gather(q, k, v, plan, options);
      EXPECT_EQ(rows.gathering.plan, plan);
      return ops::scatter_rows(ops::attend(rows, plan, options), rows.gathering);
    });
    for (size_t i = 0; i < results.size(); ++i) EXPECT_TRUE(same_bits(results[i], expected[i])) << kResultNames[i];
  }
  if (test_device().is_cpu()) {
    EXPECT_EQ(plan.use_count(), 1) << "graphs that are gone keep no plan";
  }
}

TEST(Gathering, APlanOfAnotherRowIsRefused) {
  const OpsCase c{"other", 1, 64, 4, 2, 8, make_config(4, 3, 2), scored_by(Scorer::kNorm), {0, 20, 64}};
  const Inputs inputs = make_inputs(c, at::kFloat);
  const ops::GatheredRows rows = ops::gather_by_norm(inputs.q, inputs.k, inputs.v, plan_of(c));
  const auto message_of = [&](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "did not throw";
  };
  const auto first = [](const at::Tensor& x, int64_t tokens) { return x.narrow(1, 0, tokens); };
  const auto twice = [](const at::Tensor& x) { return x.repeat({2, 1, 1, 1}); };
  EXPECT_THAT(message_of([&] {
                ops::gather_rows(first(inputs.q, 63), first(inputs.k, 63), first(inputs.v, 63), rows.gathering);
              }),
              testing::HasSubstr("gather: there are 63 tokens, but the plan is of 64"));
  EXPECT_THAT(message_of([&] { ops::scatter_rows(rows.q.narrow(2, 1, 7), rows.gathering); }),
              testing::HasSubstr("scatter: there are 7 rows"));
  EXPECT_THAT(message_of([&] { ops::gather_by_norm(twice(inputs.q), twice(inputs.k), twice(inputs.v), plan_of(c)); }),
              testing::HasSubstr("batch 2; packed documents need batch 1"));
}

}  // namespace
}  // namespace lighthouse::ops_test
