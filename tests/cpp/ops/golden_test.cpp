// The operators, from the inputs on, against what the authors' implementation made of them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "ops_cases.h"
#include "support/golden.h"

namespace lighthouse::ops_test {
namespace {

/// Largest errors of a plain fp32 implementation over the golden cases, which the golden data's page gives with two
/// digits (hence the third): absolute, and of the whole tensor in 2-norm.
struct Bound {
  double absolute, relative;
};
constexpr Bound kBounds[] = {{1.45e-6, 4.55e-7}, {2.85e-6, 9.25e-7}, {2.55e-6, 9.55e-7}, {5.75e-6, 5.85e-7}};
constexpr double kNormBound = 1.25e-6;  // of scores; for fp64, where the data's own rounding weighs more than for fp32
constexpr double kDilatedBound = 3.85e-6;

class GoldenCase {
 public:
  explicit GoldenCase(const std::string& name) : golden_(name) {}
  const test_support::Golden& data() const { return golden_; }

  at::Tensor floats(const std::string& name) const {
    std::vector<float> values = golden_.floats(name);
    return at::from_blob(values.data(), golden_.shape(name), at::kFloat).clone().to(test_device());
  }
  at::Tensor ints(const std::string& name) const {
    std::vector<int32_t> values = golden_.ints(name);
    return at::from_blob(values.data(), golden_.shape(name), at::kInt).clone().to(test_device());
  }
  ScoreConfig score(const std::string& scorer) const {
    return {find_word<Scorer>(scorer).value(), golden_.number("dilation")};
  }

 private:
  test_support::Golden golden_;
};

void expect_near(const at::Tensor& actual, const at::Tensor& expected, const Bound& bound, const std::string& name) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << name;
  const at::Tensor difference = actual.to(at::kDouble) - expected.to(at::kDouble);
  EXPECT_LE(difference.abs().max().item<double>(), bound.absolute) << name;
  EXPECT_LE(difference.norm().item<double>() / expected.to(at::kDouble).norm().item<double>(), bound.relative) << name;
}

int64_t num_zero_rows(const at::Tensor& o) { return (o.abs().sum(-1) == 0).sum().item<int64_t>(); }

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  GoldenCase golden_{std::get<0>(GetParam())};
  std::string scorer_ = std::get<1>(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest,
                         testing::Combine(testing::Values("a", "f"), testing::Values("norm", "dilated")));

TEST_P(GoldenTest, ScoresAndSelectionFromTheInputs) {
  const auto [s_qk, s_kq] =
      token_scores(golden_.floats("q"), golden_.floats("k"), golden_.floats("v"), golden_.score(scorer_));
  const double bound = scorer_ == "norm" ? kNormBound : kDilatedBound;
  EXPECT_LE(max_error(s_qk, golden_.floats(scorer_ + ".s_qk").to(at::kDouble)), bound);
  EXPECT_LE(max_error(s_kq, golden_.floats(scorer_ + ".s_kq").to(at::kDouble)), bound);
  EXPECT_TRUE(at::equal(select(s_qk, s_kq, golden_.data().config()), golden_.ints(scorer_ + ".idx")));
}

TEST_P(GoldenTest, OutputAndGradients) {
  Inputs inputs{golden_.floats("q"), golden_.floats("k"), golden_.floats("v"),
                golden_.floats("grad_out").transpose(1, 2), at::Tensor()};
  AttentionOptions options;
  options.selection_config = golden_.data().config();
  options.score_config = golden_.score(scorer_);
  const Results results = results_of(inputs, options);
  const at::Tensor expected = golden_.floats(scorer_ + ".o").transpose(1, 2);
  expect_near(results[0], expected, kBounds[0], "o");
  EXPECT_EQ(num_zero_rows(results[0]), num_zero_rows(expected));
  if (scorer_ != "norm") return;
  for (int i = 1; i < 4; ++i) {
    expect_near(results[i], golden_.floats(std::string("norm.") + kResultNames[i]), kBounds[i], kResultNames[i]);
  }
}

}  // namespace
}  // namespace lighthouse::ops_test
