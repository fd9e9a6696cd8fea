#include "nn/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/scalar_tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

constexpr double kScale = 0.37;

at::Tensor scale_of(double value, at::ScalarType dtype = at::kFloat) {
  return at::scalar_tensor(value, at::TensorOptions().dtype(dtype)).to(test_device());
}

/// Rows in the registers of a warp, of a block's two sizes, and (12, 1001, 5001) without a kernel.
class CrossEntropyTest : public testing::TestWithParam<std::tuple<int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, CrossEntropyTest,
                         testing::Combine(testing::Values(1, 8, 12, 40, 256, 264, 1001, 1024, 1032, 5001, 5000, 16384,
                                                          32000, 128256),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + dtype_name(std::get<1>(test.param));
                         });

TEST_P(CrossEntropyTest, EqualsFp64) {
  const auto& [vocab, dtype] = GetParam();
  const int64_t rows = 9;
  const at::Tensor logits = (normal({rows, vocab}, 1, at::kFloat) * 4).to(dtype);
  const at::Tensor targets = integers({rows}, vocab, 2);
  targets[3] = kIgnoredTarget;
  const at::Tensor wide = exact(logits);
  const at::Tensor range = wide.amax(1) - wide.amin(1);
  const at::Tensor target_logit = wide.gather(1, targets.cpu().clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor largest = wide.amax(1).abs() + target_logit.abs();
  const at::Tensor exact_loss = cross_entropy_(wide, targets.cpu(), exact(scale_of(kScale)));

  const at::Tensor again = logits.clone();
  const at::Tensor loss = cross_entropy(logits, targets);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  // The sum of exponentials: V roundings, rescaled at most as often as there are steps in its tree (20); an exponential
  // errs by 4 units and twice its argument. The logarithm turns relative into absolute errors.
  const at::Tensor sum_roundings = 2 * range + static_cast<double>(vocab) + 4 + 20 * 8;
  expect_close(loss, exact_loss, sum_roundings + 4 * largest + 4 * exact_loss.abs() + 4 * range, "loss");
  const at::Tensor loss_again = cross_entropy_(logits, targets, scale_of(kScale));
  expect_close(loss_again, exact_loss, sum_roundings + 4 * largest + 4 * exact_loss.abs() + 4 * range, "loss of both");
  // softmax = exponential / sum, and 1 less at the target: its error is of the softmax's size.
  const at::Tensor softmax = exact(again).softmax(1);
  const at::Tensor magnitude = kScale * softmax * (sum_roundings + 4 * range + 16).unsqueeze(1) + wide.abs() * 2;
  expect_close(logits, wide, magnitude, "gradient");
  EXPECT_EQ(loss[3].item<double>(), 0);
  EXPECT_TRUE(logits[3].eq(0).all().item<bool>());
  expect_same_bits(cross_entropy_(again, targets, scale_of(kScale)), loss_again, "repeated loss");
  expect_same_bits(again, logits, "repeated gradient");
}

TEST_P(CrossEntropyTest, RowsThatHoldWhatNoRowShould) {
  const auto& [vocab, dtype] = GetParam();
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor logits = normal({8, vocab}, 1, dtype);
  const at::Tensor targets = integers({8}, vocab, 2);
  targets[0] = vocab;
  targets[1] = -1;
  targets[2] = std::numeric_limits<int64_t>::min();
  targets[3] = int64_t{1} << 40;
  logits[4][vocab - 1] = std::nan("");
  logits[5].fill_(std::nan(""));
  logits[6].fill_(-infinity);
  targets[7] = kIgnoredTarget;
  logits[7].fill_(std::nan(""));
  for (const bool write : {false, true}) {
    const at::Tensor loss =
        exact(write ? cross_entropy_(logits, targets, scale_of(kScale, at::kDouble)) : cross_entropy(logits, targets));
    EXPECT_TRUE(loss.narrow(0, 0, 7).isnan().all().item<bool>()) << loss;
    EXPECT_EQ(loss[7].item<double>(), 0);
  }
  EXPECT_TRUE(exact(logits).narrow(0, 0, 7).isnan().all().item<bool>());
  EXPECT_TRUE(logits[7].eq(0).all().item<bool>());
}

/// A masked word has no probability; if it is the target, the loss is infinite.
TEST_P(CrossEntropyTest, MinusInfinity) {
  const auto& [vocab, dtype] = GetParam();
  if (vocab < 8) return;
  const at::Tensor logits = normal({2, vocab}, 1, dtype).fill_(-std::numeric_limits<double>::infinity());
  logits.narrow(1, vocab - 4, 4).fill_(3);
  const at::Tensor targets = integers({2}, 1, 1);
  targets[1] = vocab - 1;
  const at::Tensor loss = exact(cross_entropy_(logits, targets, scale_of(1)));
  EXPECT_EQ(loss[0].item<double>(), std::numeric_limits<double>::infinity());
  EXPECT_NEAR(loss[1].item<double>(), std::log(4.0), 1e-6);  // a few units of log(4) + 3
  EXPECT_EQ(logits[0][0].item<double>(), -1);
  EXPECT_NEAR(logits[1][vocab - 1].item<double>(), -0.75, 1e-6);
  EXPECT_NEAR(logits[1][vocab - 2].item<double>(), 0.25, 1e-6);
  EXPECT_EQ(logits[1][0].item<double>(), 0);
}

TEST(CrossEntropy, EqualsAutograd) {
  const at::Tensor logits = normal({2, 5, 30}, 1, at::kDouble).requires_grad_();
  const at::Tensor targets = integers({2, 5}, 30, 2);
  targets[1][2] = kIgnoredTarget;
  const at::Tensor sum = at::cross_entropy_loss(logits.view({10, 30}), targets.view({10}), {}, at::Reduction::Sum);
  (sum * kScale).backward();
  const at::Tensor memory = logits.detach().clone();
  const at::Tensor loss = cross_entropy_(memory, targets, scale_of(kScale, at::kDouble));
  EXPECT_EQ(loss.scalar_type(), at::kDouble);
  EXPECT_EQ(loss.sizes(), at::IntArrayRef({10}));
  EXPECT_NEAR(loss.sum().item<double>(), sum.item<double>(), 1e-13);  // ten losses of about 4
  EXPECT_LT((memory - logits.grad()).abs().max().item<double>(), 1e-15);
}

TEST(CrossEntropy, AllIgnored) {
  for (const int64_t vocab : {256, 4096}) {
    const at::Tensor logits = normal({3, vocab}, 1, at::kBFloat16);
    const at::Tensor targets = integers({3}, 1, 1).fill_(kIgnoredTarget);
    EXPECT_TRUE(cross_entropy_(logits, targets, scale_of(1)).eq(0).all().item<bool>());
    EXPECT_TRUE(logits.eq(0).all().item<bool>());
  }
}

TEST(CrossEntropy, ManyRows) {
  const at::Tensor logits = normal({70001, 8}, 1, at::kFloat);
  const at::Tensor targets = integers({70001}, 8, 2);
  const at::Tensor wide = exact(logits);
  const at::Tensor loss = cross_entropy_(wide, targets.cpu(), exact(scale_of(1)));
  EXPECT_LT((exact(cross_entropy_(logits, targets, scale_of(1))) - loss).abs().max().item<double>(), 1e-5);
  EXPECT_LT((exact(logits) - wide).abs().max().item<double>(), 1e-6);
}

TEST(CrossEntropy, NoRowsAndWrongShapes) {
  const at::Tensor none = normal({0, 256}, 1, at::kFloat);
  EXPECT_EQ(cross_entropy_(none, integers({0}, 1, 1), scale_of(1)).numel(), 0);
  const at::Tensor logits = normal({3, 256}, 1, at::kFloat);
  EXPECT_ANY_THROW(cross_entropy(logits, integers({4}, 1, 1)));
  EXPECT_ANY_THROW(cross_entropy(logits, integers({3}, 1, 1).to(at::kInt)));
  EXPECT_ANY_THROW(cross_entropy(logits.t(), integers({256}, 1, 1)));
}

}  // namespace
}  // namespace lighthouse::nn_test
