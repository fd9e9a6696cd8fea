// Attention in blocks of queries against that of whole rows, in fp64 and beside stock attention.
#include "ops/long_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "cpp/ops/ops_cases.h"
#include "ops/inner_attention.h"

namespace lighthouse::ops_test {
namespace {

struct LongCase {
  int64_t batch, num_heads, seq_len, head_dim, block_rows;
};

const std::vector<LongCase> kLongCases = {{1, 2, 300, 16, 128}, {2, 2, 256, 16, 128}, {1, 1, 129, 32, 128},
                                          {1, 3, 100, 24, 30},  {1, 2, 64, 8, 64},    {1, 1, 50, 8, 10}};

Inputs inputs_of(const LongCase& c, at::ScalarType dtype) {
  const auto heads = [&](int64_t seed) { return normal({c.batch, c.num_heads, c.seq_len, c.head_dim}, seed, dtype); };
  return {heads(1), heads(2), heads(3), heads(4), {}};
}

double scale_of(const LongCase& c) { return 1.0 / std::sqrt(static_cast<double>(c.head_dim)); }

Results in_blocks(const Inputs& x, const LongCase& c) {
  return results_of(x, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ops::long_attention(q, k, v, scale_of(c), c.block_rows);
  });
}

Results whole(const Inputs& x) {
  return results_of(x, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ops::stock_attention(q, k, v, {q.size(2)}, std::nullopt, /*deterministic=*/true);
  });
}

bool runs(const Inputs& x, const LongCase& c) {
  return ops::long_attention_runs(x.q, x.k, x.v, scale_of(c), c.block_rows);
}

TEST(LongAttention, ErrsLittleMoreThanAttentionOfWholeRows) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    for (size_t number = 0; number < kLongCases.size(); ++number) {
      const LongCase& c = kLongCases[number];
      const Inputs x = inputs_of(c, dtype);
      if (!runs(x, c)) continue;  // on CUDA cuDNN's types alone
      const auto as_double = [](const at::Tensor& y) { return y.to(at::kDouble); };
      const Results exact = whole({as_double(x.q), as_double(x.k), as_double(x.v), as_double(x.dout), {}});
      const Results stock = whole(x), blocks = in_blocks(x, c);
      for (size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_EQ(blocks[i].scalar_type(), dtype);
        const auto error = [&](const at::Tensor& y) { return (as_double(y) - exact[i]).norm().item<double>(); };
        EXPECT_LE(error(blocks[i]), 2 * error(stock[i]) + 1e-12 * exact[i].norm().item<double>())
            << kResultNames[i] << " of case " << number << ", " << dtype;
      }
    }
  }
}

TEST(LongAttention, RepeatsItsOutput) {
  const LongCase& c = kLongCases.front();
  const Inputs x = inputs_of(c, at::kBFloat16);
  if (!runs(x, c)) GTEST_SKIP() << "PyTorch would not choose cuDNN";
  EXPECT_TRUE(at::equal(in_blocks(x, c)[0], in_blocks(x, c)[0]));
}

TEST(LongAttention, OneBlockIsStockAttention) {
  const LongCase c{1, 2, 256, 16, 256};
  const Inputs x = inputs_of(c, at::kBFloat16);
  EXPECT_EQ(runs(x, c), !x.q.is_cuda()) << "on CUDA there is nothing to be gained";
  if (runs(x, c)) {
    EXPECT_TRUE(at::equal(in_blocks(x, c)[0], whole(x)[0]));
  }
}

}  // namespace
}  // namespace lighthouse::ops_test
