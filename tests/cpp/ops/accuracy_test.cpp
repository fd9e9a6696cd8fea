// Errors against the fp64 reference under the same selection, beside those of stock operators in the same dtype.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bench/composed_attention.h"
#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

std::vector<OpsCase> unpacked_cases() {
  std::vector<OpsCase> cases;
  for (const OpsCase& c : small_cases()) {
    if (c.cu_seqlens.empty()) cases.push_back(c);
  }
  cases.push_back({"longer", 1, 700, 4, 2, 32, make_config(12, 3, 4, 8), scored_by(Scorer::kNorm), {}});
  return cases;
}

Results exact_results(const OpsCase& c, const Inputs& inputs, const at::Tensor& selection) {
  const auto [q, k, v, dout, gate] = inputs;
  const reference::Selection rows = to_reference_selection(selection);
  const auto gradients = reference::attention_backward(to_reference(q), to_reference(k), to_reference(v), rows,
                                                       to_reference(dout), c.sequence());
  return {from_reference(reference::attention(to_reference(q), to_reference(k), to_reference(v), rows, c.sequence())),
          from_reference(gradients.dq), from_reference(gradients.dk), from_reference(gradients.dv)};
}

Results stock_results(const OpsCase& c, const Inputs& inputs, const at::Tensor& selection) {
  return results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return bench::composed_attention(q, k, v, selection, c.config);
  });
}

double epsilon(at::ScalarType dtype) {
  if (dtype == at::kDouble) return std::ldexp(1.0, -52);
  if (dtype == at::kFloat) return std::ldexp(1.0, -23);
  return dtype == at::kHalf ? std::ldexp(1.0, -10) : std::ldexp(1.0, -7);
}

class AccuracyTest : public testing::TestWithParam<std::tuple<OpsCase, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, AccuracyTest,
                         testing::Combine(testing::ValuesIn(unpacked_cases()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "_" + c10::toString(std::get<1>(test.param));
                         });

TEST_P(AccuracyTest, ErrsAtMostTwiceAsFarAsStockOperators) {
  const auto& [c, dtype] = GetParam();
  const Inputs inputs = make_inputs(c, dtype);
  const at::Tensor selection = selection_of(c, inputs);
  const Results exact = exact_results(c, inputs, selection);
  const Results stock = stock_results(c, inputs, selection);
  const Results ours = results_of(inputs, options_of(c, inputs));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(ours[i].scalar_type(), dtype);
    // Where stock operators happen to be exact, one rounding of the largest value is left.
    const double rounding = epsilon(dtype) * exact[i].abs().max().item<double>();
    EXPECT_LE(max_error(ours[i], exact[i]), 2 * max_error(stock[i], exact[i]) + rounding) << kResultNames[i];
  }
}

class Fp64Test : public testing::TestWithParam<OpsCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, Fp64Test, testing::ValuesIn(unpacked_cases()),
                         [](const auto& test) { return test.param.name; });

/// Sums of at most a few thousand terms of size 1 to 10 are rounded to 1e-12 in fp64.
constexpr double kFp64Bound = 1e-11;

TEST_P(Fp64Test, EqualsTheReference) {
  const OpsCase& c = GetParam();
  const Inputs inputs = make_inputs(c, at::kDouble);
  const at::Tensor selection = selection_of(c, inputs);
  const Results exact = exact_results(c, inputs, selection);
  const Results ours = results_of(inputs, options_of(c, inputs));
  const Results stock = stock_results(c, inputs, selection);  // so that it can stand for the reference in benchmarks
  for (int i = 0; i < 4; ++i) {
    EXPECT_LE(max_error(ours[i], exact[i]), kFp64Bound) << kResultNames[i];
    EXPECT_LE(max_error(stock[i], exact[i]), kFp64Bound) << "composed " << kResultNames[i];
  }
}

TEST(PackedAccuracy, EqualsTheReferenceInFp64) {
  for (const OpsCase& c : small_cases()) {
    if (c.cu_seqlens.empty()) continue;
    const Inputs inputs = make_inputs(c, at::kDouble);
    const Results exact = exact_results(c, inputs, selection_of(c, inputs));
    const Results ours = results_of(inputs, options_of(c, inputs));
    for (int i = 0; i < 4; ++i) EXPECT_LE(max_error(ours[i], exact[i]), kFp64Bound) << c.name << kResultNames[i];
  }
}

TEST(SoftmaxScale, ReachesTheAttention) {
  const OpsCase c = small_cases()[1];
  const Inputs inputs = make_inputs(c, at::kDouble);
  AttentionOptions options = options_of(c, inputs);
  options.softmax_scale = 0.3;
  const at::Tensor exact =
      from_reference(reference::attention(to_reference(inputs.q), to_reference(inputs.k), to_reference(inputs.v),
                                          to_reference_selection(selection_of(c, inputs)), c.sequence(), 0.3));
  EXPECT_LE(max_error(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), exact), kFp64Bound);
}

}  // namespace
}  // namespace lighthouse::ops_test
