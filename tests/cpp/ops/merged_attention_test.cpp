// Attention of the last rows of documents against that of whole documents, in fp64 and beside stock attention.
#include "ops/merged_attention.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <vector>

#include "cpp/ops/ops_cases.h"
#include "ops/inner_attention.h"

namespace lighthouse::ops_test {
namespace {

struct Case {
  int64_t num_heads, num_kv_heads, head_dim;
  std::vector<int64_t> num_rows;  ///< of queries in each document
  int64_t before;                 ///< rows of the first document that have keys alone
  int64_t batch = 1;
};

/// o and dq of the rows after `before`, dk and dv of all.
Results of_last_rows(const Inputs& x, const Case& c, bool deterministic = true) {
  const Inputs last{x.q.slice(2, c.before).contiguous(), x.k, x.v, x.dout.slice(2, c.before).contiguous(), {}};
  return results_of(last, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ops::stock_attention(q, k, v, c.num_rows, std::nullopt, deterministic, c.before);
  });
}

/// The same by attention of whole documents, of which the first rows' outputs count nothing.
Results of_all_rows(const Inputs& x, const Case& c) {
  std::vector<int64_t> num_rows = c.num_rows;
  num_rows.front() += c.before;
  const Results all = results_of(x, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ops::stock_attention(q, k, v, num_rows, std::nullopt, /*deterministic=*/true);
  });
  return {all[0].slice(2, c.before), all[1].slice(2, c.before), all[2], all[3]};
}

Inputs inputs_of(const Case& c, at::ScalarType dtype) {
  const int64_t rows = std::accumulate(c.num_rows.begin(), c.num_rows.end(), c.before);
  const auto heads = [&](int64_t number, int64_t seed) {
    return normal({c.batch, number, rows, c.head_dim}, seed, dtype);
  };
  Inputs x{heads(c.num_heads, 1), heads(c.num_kv_heads, 2), heads(c.num_kv_heads, 3), heads(c.num_heads, 4), {}};
  x.dout.slice(2, 0, c.before).zero_();
  return x;
}

Inputs in_fp64(const Inputs& x) {
  return {x.q.to(at::kDouble), x.k.to(at::kDouble), x.v.to(at::kDouble), x.dout.to(at::kDouble), {}};
}

const std::vector<Case> kCases = {{2, 2, 8, {40}, 60},  {4, 2, 16, {40}, 60, 2},    {4, 1, 16, {1}, 300},
                                  {1, 1, 32, {300}, 1}, {2, 2, 24, {20, 0, 50}, 7}, {4, 2, 16, {1, 1, 90}, 500}};

TEST(MergedAttention, ErrsLittleMoreThanAttentionOfWholeDocuments) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (size_t number = 0; number < kCases.size(); ++number) {
      const Case& c = kCases[number];
      const Inputs x = inputs_of(c, dtype);
      const Results exact = of_all_rows(in_fp64(x), c), whole = of_all_rows(x, c);
      for (const bool deterministic : {true, false}) {  // on CUDA other kernels
        const Results last = of_last_rows(x, c, deterministic);
        for (size_t i = 0; i < last.size(); ++i) {
          EXPECT_EQ(last[i].scalar_type(), dtype);
          const auto error = [&](const at::Tensor& y) { return (y.to(at::kDouble) - exact[i]).norm().item<double>(); };
          EXPECT_LE(error(last[i]), 2 * error(whole[i])) << kResultNames[i] << " of case " << number << ", " << dtype;
        }
      }
    }
  }
}

TEST(MergedAttention, IsThatOfWholeDocuments) {
  for (const Case& c : kCases) {
    const Inputs x = inputs_of(c, at::kDouble);
    const Results whole = of_all_rows(x, c), last = of_last_rows(x, c);
    for (size_t i = 0; i < last.size(); ++i) EXPECT_LT(max_error(last[i], whole[i]), 1e-13) << kResultNames[i];
  }
}

TEST(MergedAttention, RepeatsItsBits) {
  const Case& c = kCases[1];
  const Inputs x = inputs_of(c, at::kBFloat16);
  const Results first = of_last_rows(x, c);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const Results again = of_last_rows(x, c);
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(same_bits(again[i], first[i])) << kResultNames[i];
  }
}

/// Where exponentials of scores overflow, and one part of the keys has all of the weight.
TEST(MergedAttention, TakesLargeScores) {
  const Case c{2, 2, 16, {30}, 50};
  for (const double sign : {1.0, -1.0}) {
    Inputs x = inputs_of(c, at::kFloat);
    x.q = x.q.abs() * 100;
    x.k = x.k.abs() * 100;
    x.k.slice(2, 0, c.before).mul_(-sign);
    x.k.slice(2, c.before).mul_(sign);
    const Results exact = of_all_rows(in_fp64(x), c), whole = of_all_rows(x, c), last = of_last_rows(x, c);
    EXPECT_GT((x.q.slice(2, c.before).matmul(x.k.transpose(2, 3))).abs().max().item<double>(), 1e4);
    for (size_t i = 0; i < last.size(); ++i) {
      EXPECT_LE(max_error(last[i], exact[i]), 2 * max_error(whole[i], exact[i]) + 1e-6) << kResultNames[i];
    }
  }
}

}  // namespace
}  // namespace lighthouse::ops_test
