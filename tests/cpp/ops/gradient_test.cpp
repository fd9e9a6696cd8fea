// Autograd of the operators against differences of their values, in fp64 with the selection held fixed.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

double weighted_sum(const at::Tensor& x, const at::Tensor& weight) { return (x * weight).sum().item<double>(); }

/// (f(x + h) - f(x - h)) / 2h for every element of x.
at::Tensor differences(const at::Tensor& x, double step, const std::function<double()>& f) {
  at::Tensor result = at::zeros_like(x);
  const at::Tensor values = x.view(-1);
  const at::Tensor target = result.view(-1);
  auto* value = values.mutable_data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double before = value[i];
    value[i] = before + step;
    const double above = f();
    value[i] = before - step;
    const double below = f();
    value[i] = before;
    target.mutable_data_ptr<double>()[i] = (above - below) / (2 * step);
  }
  return result;
}

class GradientTest : public testing::TestWithParam<OpsCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, GradientTest, testing::ValuesIn(small_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(GradientTest, OfAttentionEqualsDifferences) {
  if (!test_device().is_cpu()) GTEST_SKIP() << "two calls for every element: the CPU has done them";
  const Inputs inputs = make_inputs(GetParam(), at::kDouble);
  AttentionOptions options = options_of(GetParam(), inputs);
  options.selection = selection_of(GetParam(), inputs);
  options.gate = std::nullopt;
  const Results results = results_of(inputs, options);
  const auto value = [&] {
    const at::NoGradGuard no_grad;
    return weighted_sum(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), inputs.dout);
  };
  // The sum has a few thousand terms below 100, so it is rounded to about 1e-11 and the quotient to 1e-11 / 2h = 1e-6;
  // the third derivative adds h^2 times some 1e3.
  constexpr double kStep = 5e-6;
  constexpr double kBound = 2e-6;
  const at::Tensor tensors[] = {inputs.q, inputs.k, inputs.v};
  for (int i = 0; i < 3; ++i) {
    EXPECT_LT(max_error(results[i + 1], differences(tensors[i], kStep, value)), kBound) << kResultNames[i + 1];
  }
}

TEST_P(GradientTest, BackwardIsTheAdjoint) {
  const OpsCase& c = GetParam();
  const Inputs inputs = make_inputs(c, at::kDouble);
  const at::Tensor selection = selection_of(c, inputs);
  const Results by_rows = results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const Rows rows = gather(q, k, v, selection, c.config, c.offsets());
    EXPECT_TRUE(rows.q.requires_grad());
    return scatter(rows.q, selection, c.seq_len, c.config, c.offsets()) + 0 * (k.sum() + v.sum());
  });
  // <A q, dout> = <q, A^T dout> for the linear map A = scatter gather; both sums are rounded to about 1e-12.
  EXPECT_NEAR(weighted_sum(by_rows[0], inputs.dout), weighted_sum(inputs.q, by_rows[1]), 1e-10);
}

TEST_P(GradientTest, SecondDerivativesOfGatherAndScatterEqualDifferences) {
  if (!test_device().is_cpu()) GTEST_SKIP() << "two calls for every element: the CPU has done them";
  const OpsCase& c = GetParam();
  const Inputs inputs = make_inputs(c, at::kDouble);
  const at::Tensor selection = selection_of(c, inputs);
  const at::Tensor q = inputs.q.requires_grad_();
  const auto gradient = [&] {
    const Rows rows = gather(q, inputs.k, inputs.v, selection, c.config, c.offsets());
    const at::Tensor out = scatter(rows.q * rows.q, selection, c.seq_len, c.config, c.offsets());
    return torch::autograd::grad({out.pow(2).sum()}, {q}, {}, std::nullopt, /*create_graph=*/true).front();
  };
  const at::Tensor second = torch::autograd::grad({(gradient() * inputs.dout).sum()}, {q}).front();
  const auto value = [&] { return weighted_sum(gradient(), inputs.dout); };
  // Quartic in q, with sums over windows: values up to 1e5, rounded to 1e-10 or so, over 2h.
  constexpr double kStep = 1e-5;
  const double scale = 1 + second.abs().max().item<double>();
  EXPECT_LT(max_error(second, differences(q.detach(), kStep, value)), 1e-6 * scale);
}

TEST(GradientStrides, DoNotMatter) {
  const OpsCase c = small_cases()[1];
  const Inputs inputs = make_inputs(c, at::kFloat);
  const at::Tensor selection = selection_of(c, inputs);
  const auto gradients_for = [&](const at::Tensor& dout) {
    Inputs other = inputs;
    other.dout = dout;
    AttentionOptions options = repeatable(options_of(c, inputs));
    options.selection = selection;
    return results_of(other, options);
  };
  const auto expect_equal = [&](const at::Tensor& dout) {
    const Results strided = gradients_for(dout);
    const Results contiguous = gradients_for(dout.contiguous());
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(strided[i], contiguous[i])) << kResultNames[i];
  };
  expect_equal(at::ones({}, inputs.dout.options()).expand(inputs.dout.sizes()));  // every stride is 0, as from sum()
  expect_equal(normal({2, 77, 4, 1}, 3).expand(inputs.dout.sizes()));             // channels have stride 0
  expect_equal(normal({5, 4, 77, 2}, 3).permute({3, 2, 1, 0}));                   // channels are last in memory
  expect_equal(normal({2, 77, 4, 10}, 3).slice(3, 0, std::nullopt, 2));           // every second channel
}

TEST(GradientFlow, ReachesOnlyWhatIsAsked) {
  const OpsCase c = small_cases()[0];
  const Inputs inputs = make_inputs(c, at::kFloat);
  const AttentionOptions options = repeatable(options_of(c, inputs));
  const at::Tensor v = inputs.v.detach().requires_grad_();
  const at::Tensor out = lighthouse_attention(inputs.q, inputs.k, v, options);
  const at::Tensor dv = torch::autograd::grad({out}, {v}, {inputs.dout}).front();
  EXPECT_TRUE(same_bits(dv, results_of(inputs, options)[3]));
  EXPECT_FALSE(lighthouse_attention(inputs.q, inputs.k, inputs.v, options).requires_grad());

  const auto [s_qk, s_kq] = token_scores(v, v, v);
  EXPECT_FALSE(s_qk.requires_grad());
  EXPECT_FALSE(s_kq.requires_grad());
  const auto [d_qk, d_kq] = token_scores(v, v, v, {Scorer::kDilated, 4});
  EXPECT_FALSE(d_qk.requires_grad());
  EXPECT_FALSE(d_kq.requires_grad());
}

}  // namespace
}  // namespace lighthouse::ops_test
