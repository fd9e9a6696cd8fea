// The window by FlashAttention-2 against the window by a mask, in fp64.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <optional>
#include <ostream>
#include <vector>

#include "ops/window_attention.h"

namespace lighthouse::ops {
namespace {

struct WindowCase {
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim, span;
  std::vector<int64_t> documents = {};
};
std::ostream& operator<<(std::ostream& out, const WindowCase& c) {
  return out << c.batch << 'x' << c.seq_len << 'x' << c.num_heads << '/' << c.num_kv_heads << 'x' << c.head_dim
             << " span " << c.span << ", " << c.documents.size() << " offsets";
}

/// One tensor of all heads, as the decoder has them, and the gradient of the output.
struct WindowInputs {
  at::Tensor qkv, dout;
};

WindowInputs make_window_inputs(const WindowCase& c) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  return {at::randn({c.batch, c.seq_len, c.num_heads + 2 * c.num_kv_heads, c.head_dim}, options),
          at::randn({c.batch, c.seq_len, c.num_heads, c.head_dim}, options)};
}

/// o and the gradients of q, k and v in one.
std::vector<at::Tensor> results(const WindowInputs& inputs, const WindowCase& c, at::ScalarType dtype,
                                bool deterministic = false) {
  const at::Tensor qkv = inputs.qkv.to(dtype).detach().requires_grad_();
  const std::vector<at::Tensor> parts = qkv.split_with_sizes({c.num_heads, c.num_kv_heads, c.num_kv_heads}, 2);
  const at::OptionalIntArrayRef documents =
      c.documents.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(c.documents);
  const at::Tensor out = window_attention(parts[0], parts[1], parts[2], c.span, documents, deterministic);
  return {out.detach(), torch::autograd::grad({out}, {qkv}, {inputs.dout.to(dtype)})[0]};
}

class WindowAttentionCuda : public ::testing::TestWithParam<WindowCase> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  }
};

// bf16 rounds each of a result's terms by at most 2^-8; a window that is one token off moves it by a tenth and more.
TEST_P(WindowAttentionCuda, IsThatOfTheMask) {
  const WindowInputs inputs = make_window_inputs(GetParam());
  const auto actual = results(inputs, GetParam(), at::kBFloat16);
  const auto expected = results(inputs, GetParam(), at::kDouble);
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = (actual[i].to(at::kDouble) - expected[i]).norm().item<double>();
    EXPECT_LT(error, 0.01 * expected[i].norm().item<double>()) << (i == 0 ? "o" : "dqkv");
  }
}

TEST_P(WindowAttentionCuda, RepeatsItsBits) {
  const WindowInputs inputs = make_window_inputs(GetParam());
  const auto first = results(inputs, GetParam(), at::kBFloat16, /*deterministic=*/true);
  const auto second = results(inputs, GetParam(), at::kBFloat16, /*deterministic=*/true);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Cases, WindowAttentionCuda,
                         ::testing::Values(WindowCase{1, 1000, 2, 2, 128, 64}, WindowCase{2, 513, 4, 2, 64, 1},
                                           WindowCase{2, 700, 4, 1, 80, 33}, WindowCase{1, 600, 2, 2, 128, 600},
                                           WindowCase{1, 1000, 4, 2, 128, 50, {0, 7, 7, 300, 1000}}));

}  // namespace
}  // namespace lighthouse::ops
