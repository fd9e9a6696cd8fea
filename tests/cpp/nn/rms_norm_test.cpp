#include "nn/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rms_norm.h>
#include <gtest/gtest.h>

#include <tuple>

#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

constexpr double kEps = 1e-5;

/// One width for each kernel and its edges: warps with idle lanes, 1, 2, 4 and 8 warps, re-reading; 36 and 1002 have
/// none.
class RmsNormTest : public testing::TestWithParam<std::tuple<int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, RmsNormTest,
                         testing::Combine(testing::Values(8, 24, 36, 256, 512, 520, 1002, 1024, 1032, 2048, 3000, 4096,
                                                          8192, 8200, 20000),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + dtype_name(std::get<1>(test.param));
                         });

constexpr int64_t kNormRows = 7;

at::Tensor weight_of(int64_t channels) { return normal({channels}, 3, at::kFloat) + 1; }

void expect_norm(const Normed& normed, const at::Tensor& weight, at::ScalarType dtype) {
  const auto channels = static_cast<double>(normed.sum.size(-1));
  const Normed reference = add_rms_norm(exact(normed.sum), {}, exact(weight), kEps);
  // The mean: C roundings of its sum, 2 of square and quotient, eps 1; halved by the root, which itself has 2.
  const double roundings = (channels + 3) / 2 + 2;
  expect_close(normed.inverse_rms, reference.inverse_rms, reference.inverse_rms * roundings, "inverse_rms");
  expect_close(normed.normed, reference.normed, reference.normed.abs() * (roundings + 2), "normed");
  EXPECT_EQ(normed.normed.scalar_type(), dtype);
  EXPECT_EQ(normed.inverse_rms.scalar_type(), at::kFloat);
}

TEST_P(RmsNormTest, AddsAndNorms) {
  const auto& [channels, dtype] = GetParam();
  const at::Tensor x = normal({kNormRows, channels}, 1, dtype);
  const at::Tensor update = normal({kNormRows, channels}, 2, dtype);
  const Normed normed = add_rms_norm(x, update, weight_of(channels), kEps);
  // Exact in fp64, then as the processor adds in fp32, then rounded.
  expect_same_bits(normed.sum.cpu(), (exact(x) + exact(update)).to(at::kFloat).to(dtype), "sum");
  expect_norm(normed, weight_of(channels), dtype);
}

TEST_P(RmsNormTest, NormsWithoutCopy) {
  const auto& [channels, dtype] = GetParam();
  const at::Tensor x = normal({1, kNormRows, channels}, 1, dtype);
  const Normed normed = add_rms_norm(x, {}, weight_of(channels), kEps);
  EXPECT_TRUE(normed.sum.is_same(x));
  EXPECT_EQ(normed.inverse_rms.sizes(), at::IntArrayRef({kNormRows}));
  expect_norm(normed, weight_of(channels), dtype);
}

TEST_P(RmsNormTest, BackwardEqualsFp64) {
  const auto& [channels, dtype] = GetParam();
  for (const bool residual : {true, false}) {
    const at::Tensor x = normal({kNormRows, channels}, 1, dtype);
    const at::Tensor weight = weight_of(channels);
    const at::Tensor inverse_rms = add_rms_norm(x, {}, weight, kEps).inverse_rms;
    const at::Tensor residual_grad = residual ? normal({kNormRows, channels}, 5, dtype) : at::Tensor();
    const at::Tensor grad = normal({kNormRows, channels}, 4, dtype);
    const at::Tensor exact_residual = residual ? exact(residual_grad) : at::Tensor();
    const at::Tensor reference =
        rms_norm_backward_(exact(grad), exact(x), exact(weight), exact(inverse_rms), exact_residual);

    const at::Tensor weighted = (exact(grad) * exact(weight)).abs();
    const at::Tensor mean = (weighted * exact(x).abs()).mean(-1, true) * exact(inverse_rms).square().unsqueeze(-1);
    // The subtrahend: C + 1 roundings of the mean, 2 of its terms, 4 of the other factors; 2 of the sums.
    at::Tensor magnitude = weighted * 3 + exact(x).abs() * mean * (static_cast<double>(channels) + 9);
    if (residual) magnitude += 2 * exact_residual.abs();
    const at::Tensor again = grad.clone();
    const at::Tensor dx = rms_norm_backward_(grad, x, weight, inverse_rms, residual_grad);
    EXPECT_EQ(dx.data_ptr(), grad.data_ptr());
    expect_close(dx, reference, magnitude, residual ? "with residual" : "without");
    expect_same_bits(rms_norm_backward_(again, x, weight, inverse_rms, residual_grad), dx, "repeat");
  }
}

TEST(RmsNorm, RepeatsEqualBits) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = normal({300, 1024}, 1, dtype);
    const at::Tensor update = normal({300, 1024}, 2, dtype);
    const Normed first = add_rms_norm(x, update, weight_of(1024), kEps);
    const Normed second = add_rms_norm(x, update, weight_of(1024), kEps);
    expect_same_bits(first.normed, second.normed, "normed");
    expect_same_bits(first.inverse_rms, second.inverse_rms, "inverse_rms");
  }
}

TEST(RmsNorm, RowsAtUnalignedAddresses) {
  const at::Tensor memory = normal({3 * 64 + 1}, 1, at::kBFloat16);
  const at::Tensor x = memory.narrow(0, 1, 3 * 64).view({3, 64});
  expect_norm(add_rms_norm(x, {}, weight_of(64), kEps), weight_of(64), at::kBFloat16);
}

TEST(RmsNorm, NoRows) {
  const at::Tensor x = normal({0, 64}, 1, at::kBFloat16);
  const Normed normed = add_rms_norm(x, x, weight_of(64), kEps);
  EXPECT_EQ(normed.normed.sizes(), x.sizes());
  EXPECT_EQ(normed.inverse_rms.numel(), 0);
  EXPECT_EQ(rms_norm_backward_(x.clone(), x, weight_of(64), normed.inverse_rms, {}).numel(), 0);
}

TEST(RmsNorm, RefusesOtherShapes) {
  const at::Tensor x = normal({3, 64}, 1, at::kFloat);
  EXPECT_ANY_THROW(add_rms_norm(x, normal({3, 32}, 1, at::kFloat), weight_of(64), kEps));
  EXPECT_ANY_THROW(add_rms_norm(x, {}, weight_of(32), kEps));
  EXPECT_ANY_THROW(add_rms_norm(x.t(), {}, weight_of(3), kEps));
  EXPECT_ANY_THROW(rms_norm_backward_(x.clone(), x, weight_of(64), weight_of(4), {}));
}

/// The whole decomposition of y = rms_norm(x + update) matrix^T, in fp64, against autograd.
TEST(RmsNorm, DecompositionEqualsAutograd) {
  constexpr int64_t kChannels = 24;
  constexpr int64_t kOut = 40;
  const auto leaf = [](at::IntArrayRef shape, int64_t seed) {
    return normal(shape, seed, at::kDouble).requires_grad_();
  };
  const at::Tensor x = leaf({2, 5, kChannels}, 1);
  const at::Tensor weight = leaf({kChannels}, 2);
  const at::Tensor matrix = leaf({kOut, kChannels}, 3);
  const at::Tensor dy = normal({2, 5, kOut}, 4, at::kDouble);
  const at::Tensor dresidual = normal({2, 5, kChannels}, 5, at::kDouble);
  const at::Tensor y = at::rms_norm(x, {kChannels}, weight, kEps).matmul(matrix.t());
  ((y * dy).sum() + (x * dresidual).sum()).backward();

  const Normed normed = add_rms_norm(x.detach(), {}, weight.detach(), kEps);
  const at::Tensor rows = dy.view({10, kOut}) * normed.inverse_rms.unsqueeze(1);
  const at::Tensor scaled_grad = rows.matmul(matrix.detach());
  const at::Tensor dx = rms_norm_backward_(scaled_grad, x.detach(), weight.detach(), normed.inverse_rms, dresidual);
  at::Tensor dmatrix = rows.t().matmul(x.detach().view({10, kChannels}));
  const at::Tensor dweight = split_norm_gradient_(dmatrix, matrix.detach(), weight.detach());
  // A hundred roundings of values that are at most a hundred.
  const auto close = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>() < 1e-12;
  };
  EXPECT_TRUE(close(dx, x.grad()));
  EXPECT_TRUE(close(dmatrix, matrix.grad()));
  EXPECT_TRUE(close(dweight, weight.grad()));
}

class SplitNormTest : public testing::TestWithParam<std::tuple<int64_t, int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, SplitNormTest,
                         testing::Combine(testing::Values(1, 7, 96, 3072), testing::Values(4, 24, 30, 1024, 1156),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" +
                                  std::to_string(std::get<1>(test.param)) + "_" + dtype_name(std::get<2>(test.param));
                         });

TEST_P(SplitNormTest, EqualsFp64) {
  const auto& [out, channels, dtype] = GetParam();
  const at::Tensor matrix = normal({out, channels}, 1, dtype);
  const at::Tensor dmatrix = normal({out, channels}, 2, at::kFloat);
  const at::Tensor weight = weight_of(channels);
  at::Tensor exact_dmatrix = exact(dmatrix);
  const at::Tensor magnitude = (exact_dmatrix * exact(matrix)).abs().sum(0) * static_cast<double>(out + 1);
  const at::Tensor exact_dnorm = split_norm_gradient_(exact_dmatrix, exact(matrix), exact(weight));
  const at::Tensor again = dmatrix.clone();
  const at::Tensor dnorm = split_norm_gradient_(dmatrix, matrix, weight);
  expect_close(dnorm, exact_dnorm, magnitude, "dnorm");
  expect_same_bits(dmatrix.cpu(), exact_dmatrix.to(at::kFloat), "dmatrix");  // one product, exact in fp64
  expect_same_bits(split_norm_gradient_(again, matrix, weight), dnorm, "repeat");
}

}  // namespace
}  // namespace lighthouse::nn_test
