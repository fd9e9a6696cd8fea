// More than 2^31 elements, on a GPU: the last rows are what they are alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "nn/cross_entropy.h"
#include "nn/heads.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"
#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

constexpr int64_t kTail = 3;

class LargeTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test_device().is_cuda()) GTEST_SKIP() << "LIGHTHOUSE_TEST_DEVICE is not cuda";
  }

  /// bf16 [rows, channels], zero but for its last rows: 4 GiB, of which a test holds at most five.
  static at::Tensor make(int64_t rows, int64_t channels, int64_t seed) {
    at::Tensor x = at::empty({rows, channels}, at::TensorOptions().dtype(at::kBFloat16).device(test_device())).zero_();
    tail(x).copy_(normal({kTail, channels}, seed, at::kBFloat16));
    return x;
  }
  static at::Tensor tail(const at::Tensor& x) { return x.narrow(0, x.size(0) - kTail, kTail); }
};

TEST_F(LargeTest, RmsNorm) {
  constexpr int64_t kChannels = 1024;
  constexpr int64_t kRows = (int64_t{1} << 21) + 5;
  const at::Tensor x = make(kRows, kChannels, 1);
  const at::Tensor weight = normal({kChannels}, 2, at::kFloat);
  const Normed all = add_rms_norm(x, x, weight, 1e-5);
  const Normed last = add_rms_norm(tail(x).clone(), tail(x).clone(), weight, 1e-5);
  expect_same_bits(tail(all.sum), last.sum, "sum");
  expect_same_bits(tail(all.normed), last.normed, "normed");
  expect_same_bits(tail(all.inverse_rms), last.inverse_rms, "inverse_rms");
  const at::Tensor grad = tail(all.normed).clone();
  const at::Tensor dx = rms_norm_backward_(all.normed, all.sum, weight, all.inverse_rms, x);
  const at::Tensor dx_last = rms_norm_backward_(grad, last.sum, weight, last.inverse_rms, tail(x).clone());
  expect_same_bits(tail(dx), dx_last, "dx");
}

TEST_F(LargeTest, Swiglu) {
  constexpr int64_t kChannels = 2048;
  constexpr int64_t kRows = (int64_t{1} << 21) + 5;
  const at::Tensor gate_up = make(kRows, 2 * kChannels, 1);
  const at::Tensor gate_up_last = tail(gate_up).clone();
  const at::Tensor grad = swiglu(gate_up);
  const at::Tensor grad_last = swiglu(gate_up_last);
  expect_same_bits(tail(grad), grad_last, "swiglu");
  const at::Tensor inverse_rms = normal({kTail}, 3, at::kFloat);
  const at::Tensor all_inverse_rms = at::empty({kRows}, inverse_rms.options()).zero_();
  tail(all_inverse_rms).copy_(inverse_rms);
  swiglu_backward_(gate_up, grad, all_inverse_rms);
  swiglu_backward_(gate_up_last, grad_last, inverse_rms);
  expect_same_bits(tail(gate_up), gate_up_last, "gradient");
  expect_same_bits(tail(grad), grad_last, "swiglu again");
}

TEST_F(LargeTest, Heads) {
  constexpr int64_t kTokens = (int64_t{1} << 18) + 5;
  const at::Tensor x = make(kTokens, 64 * 128, 1);
  const at::Tensor angle = normal({kTail, 1, 64}, 2, at::kFloat);
  const at::Tensor all_angles = at::empty({kTokens, 1, 64}, angle.options()).zero_();
  tail(all_angles).copy_(angle);
  const at::Tensor last = tail(x).clone().view({1, kTail, 64, 128});
  const at::Tensor all = x.view({1, kTokens, 64, 128});
  rotate_heads_(all, 56, {all_angles.cos(), all_angles.sin()});
  rotate_heads_(last, 56, {angle.cos(), angle.sin()});
  expect_same_bits(tail(x).flatten(), last.flatten(), "rotated");
  const auto packed = [](const at::Tensor& heads, const at::Tensor& angles) {
    return pack_head_gradients(heads.narrow(2, 0, 48), heads.narrow(2, 48, 8), heads.narrow(2, 56, 8),
                               {angles.cos(), angles.sin()}, angles.select(2, 0).select(1, 0).contiguous());
  };
  expect_same_bits(tail(packed(all, all_angles)), packed(last, angle), "packed");
}

TEST_F(LargeTest, CrossEntropy) {
  for (const int64_t vocab : {256, 32768}) {
    const int64_t rows = (int64_t{1} << 31) / vocab + 5;
    const at::Tensor logits = make(rows, vocab, 1);
    const at::Tensor last = tail(logits).clone();
    const at::Tensor targets = at::empty({rows}, at::TensorOptions().dtype(at::kLong).device(test_device())).zero_();
    const at::Tensor scale = at::full({rows}, 0.5, at::TensorOptions().dtype(at::kFloat).device(test_device()));
    expect_same_bits(tail(cross_entropy_(logits, targets, scale)),
                     cross_entropy_(last, tail(targets).clone(), tail(scale).clone()), "loss");
    expect_same_bits(tail(logits), last, "gradient");
  }
}

}  // namespace
}  // namespace lighthouse::nn_test
