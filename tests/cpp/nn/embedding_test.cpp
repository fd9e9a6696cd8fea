#include "nn/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <tuple>

#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

struct Case {
  int64_t tokens, vocab, channels;
};
const Case kCases[] = {{1, 1, 1},        {50, 7, 24},    {5000, 256, 36},     {20000, 256, 64},
                       {3000, 1024, 24}, {50, 1025, 24}, {4000, 30000, 1024}, {4097, 300, 8}};

class EmbeddingTest : public testing::TestWithParam<std::tuple<Case, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, EmbeddingTest,
                         testing::Combine(testing::ValuesIn(kCases),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kDouble)),
                         [](const auto& test) {
                           const Case& c = std::get<0>(test.param);
                           return std::to_string(c.tokens) + "_of_" + std::to_string(c.vocab) + "_" +
                                  dtype_name(std::get<1>(test.param));
                         });

TEST_P(EmbeddingTest, EqualsFp64) {
  const auto& [c, dtype] = GetParam();
  const at::Tensor tokens = integers({1, c.tokens}, c.vocab, 1);
  tokens.narrow(1, 0, c.tokens / 4).fill_(c.vocab / 2);  // a word that is far more common
  const at::Tensor grad = normal({1, c.tokens, c.channels}, 2, dtype);
  const at::Tensor rows = exact(grad).view({c.tokens, c.channels});
  const at::Tensor words = tokens.cpu().view({c.tokens});
  const auto sums = [&](const at::Tensor& x) {
    return at::zeros({c.vocab, x.size(1)}, x.options()).index_add_(0, words, x);
  };
  // Sums of fp32 in any order. Those of matrix products may cut off where others round: twice the error.
  const at::Tensor counts = sums(rows.narrow(1, 0, 1).clone().fill_(1));
  const at::Tensor result = embedding_gradient(tokens, grad, c.vocab);
  EXPECT_EQ(result.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
  expect_close(result, sums(rows), sums(rows.abs()) * (2 * counts + 2), "gradient");
  expect_same_bits(embedding_gradient(tokens, grad, c.vocab), result, "repeat");
}

TEST(Embedding, EqualsAutograd) {
  const at::Tensor weight = normal({9, 5}, 1, at::kDouble).requires_grad_();
  const at::Tensor tokens = integers({2, 20}, 9, 2);
  const at::Tensor grad = normal({2, 20, 5}, 3, at::kDouble);
  (at::embedding(weight, tokens) * grad).sum().backward();
  EXPECT_LT((embedding_gradient(tokens, grad, 9) - weight.grad()).abs().max().item<double>(), 1e-14);
}

TEST(Embedding, NoTokensAndWrongShapes) {
  for (const int64_t vocab : {16, 4096}) {
    const at::Tensor none = embedding_gradient(integers({0}, 1, 1), normal({0, 8}, 1, at::kBFloat16), vocab);
    EXPECT_EQ(none.sizes(), at::IntArrayRef({vocab, 8}));
    EXPECT_TRUE(none.eq(0).all().item<bool>());
  }
  EXPECT_ANY_THROW(embedding_gradient(integers({3}, 1, 1), normal({4, 8}, 1, at::kFloat), 16));
}

}  // namespace
}  // namespace lighthouse::nn_test
