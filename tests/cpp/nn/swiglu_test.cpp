#include "nn/swiglu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>

#include <tuple>

#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

class SwigluTest : public testing::TestWithParam<std::tuple<int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, SwigluTest,
                         testing::Combine(testing::Values(1, 8, 20, 72, 256, 1000, 2816, 8208, 14336),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + dtype_name(std::get<1>(test.param));
                         });

constexpr int64_t kSwigluRows = 5;

/// Gates to about 40: sigmoids of both kinds round to 0 and 1.
at::Tensor make_gate_up(int64_t ffn_dim, at::ScalarType dtype) {
  at::Tensor x = normal({kSwigluRows, 2 * ffn_dim}, 1, at::kFloat);
  x.select(0, 1).mul_(10);
  return x.to(dtype);
}

/// An exponential of g errs by 4 units, and by that of its argument, scaled or not: 2 |g| units. The sum with 1 and the
/// quotient take 2 units each (approximate division), the products 2.
at::Tensor sigmoid_roundings(const at::Tensor& gate) { return gate.abs() * 2 + 12; }

TEST_P(SwigluTest, ForwardEqualsFp64) {
  const auto& [ffn_dim, dtype] = GetParam();
  const at::Tensor gate_up = make_gate_up(ffn_dim, dtype);
  const at::Tensor reference = swiglu(exact(gate_up));
  const at::Tensor gate = exact(gate_up).narrow(1, 0, ffn_dim);
  const at::Tensor out = swiglu(gate_up);
  EXPECT_EQ(out.scalar_type(), dtype);
  expect_close(out, reference, reference.abs() * sigmoid_roundings(gate), "swiglu");
  expect_same_bits(swiglu(gate_up), out, "repeat");
}

TEST_P(SwigluTest, BackwardEqualsFp64) {
  const auto& [ffn_dim, dtype] = GetParam();
  const at::Tensor gate_up = make_gate_up(ffn_dim, dtype);
  const at::Tensor grad = normal({kSwigluRows, ffn_dim}, 2, dtype);
  const at::Tensor inverse_rms = normal({kSwigluRows}, 3, at::kFloat).abs() + 0.1;
  const at::Tensor wide_gate_up = exact(gate_up);
  const at::Tensor wide_grad = exact(grad);
  const at::Tensor gate = exact(gate_up).narrow(1, 0, ffn_dim);
  const at::Tensor up = exact(gate_up).narrow(1, ffn_dim, ffn_dim);
  const at::Tensor scaled = (wide_grad * exact(inverse_rms).unsqueeze(1)).abs();
  const at::Tensor roundings = sigmoid_roundings(gate);
  const at::Tensor sigmoid = gate.sigmoid();
  swiglu_backward_(wide_gate_up, wide_grad, exact(inverse_rms));

  const at::Tensor forward = swiglu(gate_up);
  const at::Tensor gate_up_again = gate_up.clone();
  const at::Tensor grad_again = grad.clone();
  swiglu_backward_(gate_up, grad, inverse_rms);
  expect_same_bits(grad, forward, "swiglu again");
  expect_close(grad, wide_grad, wide_grad.abs() * roundings, "swiglu");
  // sigmoid * (1 + gate * (1 - sigmoid)): sigmoid errs in both places, and 1 - sigmoid by a unit of 1 as well.
  const at::Tensor slope = sigmoid * gate.abs() * (sigmoid * roundings + 1);
  expect_close(gate_up.narrow(1, 0, ffn_dim), wide_gate_up.narrow(1, 0, ffn_dim),
               scaled * up.abs() * (sigmoid * (1 + gate.abs() * (1 - sigmoid)) * (roundings + 6) + slope), "dgate");
  expect_close(gate_up.narrow(1, ffn_dim, ffn_dim), wide_gate_up.narrow(1, ffn_dim, ffn_dim),
               scaled * (gate * sigmoid).abs() * (roundings + 2), "dup");
  swiglu_backward_(gate_up_again, grad_again, inverse_rms);
  expect_same_bits(gate_up_again, gate_up, "repeat");
}

TEST(Swiglu, BackwardEqualsAutograd) {
  const at::Tensor gate_up = normal({2, 3, 20}, 1, at::kDouble).requires_grad_();
  const at::Tensor grad = normal({2, 3, 10}, 2, at::kDouble);
  const at::Tensor inverse_rms = normal({6}, 3, at::kDouble).abs();
  const at::Tensor out = at::silu(gate_up.narrow(2, 0, 10)) * gate_up.narrow(2, 10, 10);
  (out * grad).sum().backward();
  const at::Tensor result = gate_up.detach().clone();
  at::Tensor memory = grad.clone();
  swiglu_backward_(result, memory, inverse_rms);
  // A dozen roundings of values of at most ten.
  EXPECT_LT((memory - out.detach()).abs().max().item<double>(), 1e-14);
  EXPECT_LT((swiglu(gate_up.detach()) - out.detach()).abs().max().item<double>(), 1e-14);
  EXPECT_LT((result - gate_up.grad() * inverse_rms.view({2, 3, 1})).abs().max().item<double>(), 1e-13);
}

TEST(Swiglu, LargeGates) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor gate_up = normal({1, 16}, 1, dtype).fill_(1);
    gate_up.narrow(1, 0, 4).fill_(-1e30);
    gate_up.narrow(1, 4, 4).fill_(1e30);
    const at::Tensor grad = normal({1, 8}, 1, dtype).fill_(1);
    swiglu_backward_(gate_up, grad, normal({1}, 1, at::kFloat).fill_(1));
    const at::Tensor out = exact(grad);
    EXPECT_TRUE(out.narrow(1, 0, 4).eq(0).all().item<bool>());
    EXPECT_TRUE(out.narrow(1, 4, 4).gt(0.9e30).all().item<bool>());
    const at::Tensor dgate = exact(gate_up).narrow(1, 0, 8);
    EXPECT_TRUE(dgate.narrow(1, 0, 4).eq(0).all().item<bool>());
    EXPECT_TRUE(dgate.narrow(1, 4, 4).eq(1).all().item<bool>());
  }
}

TEST(Swiglu, NoRowsAndWrongShapes) {
  EXPECT_EQ(swiglu(normal({0, 32}, 1, at::kBFloat16)).sizes(), at::IntArrayRef({0, 16}));
  const at::Tensor x = normal({2, 32}, 1, at::kFloat);
  EXPECT_ANY_THROW(swiglu(normal({2, 15}, 1, at::kFloat)));
  EXPECT_ANY_THROW(swiglu_backward_(x, normal({2, 32}, 1, at::kFloat), normal({2}, 1, at::kFloat)));
  EXPECT_ANY_THROW(swiglu_backward_(x, normal({2, 16}, 1, at::kFloat), normal({3}, 1, at::kFloat)));
}

}  // namespace
}  // namespace lighthouse::nn_test
