// The window against its definition: softmax over the tokens that it has, in fp64.
#include "ops/window_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lighthouse/check.h"

namespace lighthouse::ops {
namespace {

at::Tensor heads(int64_t num_heads, int64_t seq_len = 30, int64_t head_dim = 8) {
  return at::randn({2, seq_len, num_heads, head_dim}, at::kDouble);
}

/// Token by token, with query head h on KV head h / group.
at::Tensor by_definition(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t span) {
  at::Tensor out = at::zeros_like(q);
  const int64_t group = q.size(2) / k.size(2);
  for (int64_t head = 0; head < q.size(2); ++head) {
    for (int64_t token = 0; token < q.size(1); ++token) {
      const int64_t first = std::max<int64_t>(token + 1 - span, 0);
      const auto seen = [&](const at::Tensor& x) { return x.select(2, head / group).slice(1, first, token + 1); };
      const at::Tensor scores = (seen(k) * q.select(2, head).narrow(1, token, 1)).sum(-1) / std::sqrt(q.size(3));
      out.select(2, head).select(1, token).copy_((scores.softmax(-1).unsqueeze(-1) * seen(v)).sum(1));
    }
  }
  return out;
}

TEST(WindowAttention, IsSoftmaxOverTheLatestTokens) {
  for (const int64_t span : {1, 2, 7, 29, 30, 100}) {
    const at::Tensor q = heads(4), k = heads(2), v = heads(2);
    const at::Tensor error = window_attention(q, k, v, span, std::nullopt, false) - by_definition(q, k, v, span);
    EXPECT_LT(error.abs().max().item<double>(), 1e-12) << span;
  }
}

// 256 queries at a time, or as many as a window has tokens.
TEST(WindowAttention, IsTheSameInBlocksOfQueries) {
  for (const int64_t span : {1, 5, 255, 256, 300, 511}) {
    const at::Tensor q = heads(2, 700), k = heads(1, 700), v = heads(1, 700);
    const at::Tensor error = window_attention(q, k, v, span, std::nullopt, false) - by_definition(q, k, v, span);
    EXPECT_LT(error.abs().max().item<double>(), 1e-12) << span;
  }
}

TEST(WindowAttention, OfDocumentsInBlocksIsThatOfEach) {
  const std::vector<int64_t> offsets = {0, 3, 255, 256, 256, 600, 700};
  const auto first_of = [](const at::Tensor& x) { return x.slice(0, 0, 1); };
  const at::Tensor q = first_of(heads(2, 700)), k = first_of(heads(2, 700)), v = first_of(heads(2, 700));
  const at::Tensor out = window_attention(q, k, v, 20, at::IntArrayRef(offsets), false);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const auto document = [&](const at::Tensor& x) { return x.slice(1, offsets[i], offsets[i + 1]); };
    if (offsets[i] == offsets[i + 1]) continue;
    const at::Tensor error = document(out) - by_definition(document(q), document(k), document(v), 20);
    EXPECT_LT(error.abs().max().item<double>(), 1e-12) << i;
  }
}

TEST(WindowAttention, HasItsGradients) {
  std::vector<at::Tensor> gradients;
  constexpr int64_t kLen = 300;  // two blocks
  const at::Tensor q = heads(4, kLen), k = heads(2, kLen), v = heads(2, kLen), dout = heads(4, kLen);
  for (const bool defined : {true, false}) {
    const std::vector<at::Tensor> x = {q.clone().requires_grad_(), k.clone().requires_grad_(),
                                       v.clone().requires_grad_()};
    at::Tensor out = at::zeros_like(q);
    if (defined) {
      const at::Tensor all = at::ones({kLen, kLen}, at::kBool), mask = all.tril().logical_and(all.triu(-6));
      const auto by_head = [](const at::Tensor& t) { return t.repeat_interleave(4 / t.size(2), 2).transpose(1, 2); };
      const at::Tensor scores = by_head(x[0]).matmul(by_head(x[1]).transpose(2, 3)) / std::sqrt(8.0);
      out = scores.masked_fill(mask.logical_not(), -INFINITY).softmax(-1).matmul(by_head(x[2])).transpose(1, 2);
    } else {
      out = window_attention(x[0], x[1], x[2], 7, std::nullopt, false);
    }
    out.backward(dout);
    for (const at::Tensor& leaf : x) gradients.push_back(leaf.grad());
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_LT((gradients[i] - gradients[i + 3]).abs().max().item<double>(), 1e-12) << i;
}

TEST(WindowAttention, RefusesAWindowOfNothing) {
  const at::Tensor x = heads(2);
  EXPECT_THAT([&] { window_attention(x, x, x, 0, std::nullopt, false); },
              ::testing::ThrowsMessage<InvalidArgument>(::testing::HasSubstr("a window of 0 tokens")));
}

}  // namespace
}  // namespace lighthouse::ops
