// Level-0 scores against the reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lighthouse/score.h"
#include "stage_cases.h"
#include "support/strided_array.h"
#include "support/threads.h"

namespace lighthouse {
namespace {

using reference::Scores;
using reference::Tensor;
using test_support::kOrders;
using test_support::round_to;
using test_support::StridedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};
constexpr float kCanary = -777.0F;

Tensor rounded(DType dtype, Tensor x) {
  for (double& value : x.values) value = round_to(dtype, value);
  return x;
}

/// Norms of x, written with gaps: score[b, g, j] at b * 2 * H_kv * N + g + j * 2 * H_kv. Gaps must stay as they were.
Tensor run_norms(const StridedArray& x, DType dtype, const StageCase& c, const ParallelFor& parallel_for) {
  const int64_t step = 2 * c.num_kv_heads;
  std::vector<float> scores(c.batch * c.seq_len * step + 1, kCanary);
  token_norms({x.const_view(), dtype, c.batch, c.seq_len, c.num_heads, c.num_kv_heads, c.head_dim, scores.data(),
               c.seq_len * step, 1, step},
              parallel_for);
  Tensor norms(c.batch, c.seq_len, c.num_kv_heads, 1);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t token = 0; token < c.seq_len; ++token) {
      float* at = scores.data() + (b * c.seq_len + token) * step;
      for (int64_t kv_head = 0; kv_head < c.num_kv_heads; ++kv_head) *norms.at(b, token, kv_head) = at[kv_head];
      std::fill_n(at, c.num_kv_heads, kCanary);
    }
  }
  for (const float score : scores) EXPECT_EQ(score, kCanary) << "written outside of the scores";
  return norms;
}

/// The squares of small integers add up exactly, and a square root is rounded to nearest.
TEST(TokenNorms, AreExactOnIntegers) {
  CaseGenerator random(20);
  for (int i = 0; i < 200; ++i) {
    const StageCase c = random.stage_case(300);
    const DType dtype = random.one_of(kDTypes);
    SCOPED_TRACE(testing::PrintToString(c) + "dtype " + std::to_string(static_cast<int>(dtype)));
    const Tensor x = random.integers(c.batch, c.seq_len, c.num_heads, c.head_dim);
    const Tensor k = random.integers(c.batch, c.seq_len, c.num_kv_heads, c.head_dim);
    const Tensor expected = rounded(DType::kFloat32, reference::norm_scores(x, k).qk);
    const Tensor actual = run_norms(StridedArray(dtype, random.one_of(kOrders), x), dtype, c,
                                    test_support::threaded_for(1 + random.below(3)));
    ASSERT_EQ(actual.values, expected.values);
  }
}

/// A sum of D squares is off by at most D + 1 roundings, its root by half of that and one more.
TEST(TokenNorms, AreWithinRounding) {
  CaseGenerator random(21);
  const double epsilon = std::ldexp(1.0, -24);
  for (int i = 0; i < 40; ++i) {
    const StageCase c = random.stage_case(300);
    const DType dtype = random.one_of(kDTypes);
    const Tensor x = rounded(dtype, random.normals(c.batch, c.seq_len, c.num_heads, c.head_dim));
    const Tensor k(c.batch, c.seq_len, c.num_kv_heads, c.head_dim);
    const Tensor expected = reference::norm_scores(x, k).qk;
    const Tensor actual = run_norms(StridedArray(dtype, random.one_of(kOrders), x), dtype, c, serial_for);
    for (size_t j = 0; j < expected.values.size(); ++j) {
      const double roundings = dtype == DType::kFloat64 ? 1.001 : 0.5 * static_cast<double>(c.head_dim + 1) + 1;
      ASSERT_LE(std::abs(actual.values[j] - expected.values[j]), roundings * epsilon * expected.values[j])
          << "score " << j << " is " << actual.values[j] << ", not " << expected.values[j];
    }
  }
}

TEST(TokenNorms, NotANumberYieldsToTheOtherHeads) {
  const double nan = std::nan("");
  StageCase c{};
  c.batch = c.num_kv_heads = 1;
  c.num_heads = 2;
  c.seq_len = 3;
  c.head_dim = 1;
  Tensor x(1, 3, 2, 1);
  x.values = {nan, 3, 4, nan, nan, nan};
  for (const DType dtype : kDTypes) {
    const Tensor norms = run_norms(StridedArray(dtype, kOrders[0], x), dtype, c, serial_for);
    EXPECT_EQ(norms.values[0], 3);
    EXPECT_EQ(norms.values[1], 4);
    EXPECT_TRUE(std::isnan(norms.values[2]));
  }
}

struct GlaInput {
  StageCase c;
  int64_t dilation;
  Tensor q, k, v, gate;
};

GlaInput random_gla(CaseGenerator& random, DType dtype) {
  GlaInput input{random.stage_case(120), 0, {}, {}, {}, {}};
  StageCase& c = input.c;
  c.head_dim = std::min<int64_t>(c.head_dim, 40);
  input.dilation = random.one_of({1, 2, 4, 7, 1000});
  input.q = rounded(dtype, random.normals(c.batch, c.seq_len, c.num_heads, c.head_dim));
  input.k = rounded(dtype, random.normals(c.batch, c.seq_len, c.num_kv_heads, c.head_dim));
  input.v = rounded(dtype, random.normals(c.batch, c.seq_len, c.num_kv_heads, c.head_dim));
  input.gate = random.normals(c.batch, c.seq_len, c.num_heads, 1);
  // logsigmoid(x) / 16, held in fp32
  for (double& gate : input.gate.values) gate = round_to(DType::kFloat32, -std::log1p(std::exp(-gate)) / 16);
  return input;
}

struct FloatScores {
  std::vector<float> qk, kq;
};

FloatScores run_gla(const GlaInput& input, DType dtype, CaseGenerator& random, const ParallelFor& parallel_for) {
  const StageCase& c = input.c;
  const StridedArray q(dtype, random.one_of(kOrders), input.q);
  const StridedArray k(dtype, random.one_of(kOrders), input.k);
  const StridedArray v(dtype, random.one_of(kOrders), input.v);
  const StridedArray gate(DType::kFloat32, random.one_of(kOrders), input.gate);
  const size_t size = c.batch * c.num_kv_heads * c.seq_len;
  FloatScores scores{std::vector<float>(size + 1, kCanary), std::vector<float>(size + 1, kCanary)};
  const ConstView gates = gate.const_view();
  gla_scores({q.const_view(), k.const_view(), v.const_view(), dtype, static_cast<const float*>(gates.data),
              gates.batch_stride, gates.seq_stride, gates.head_stride, c.batch, c.seq_len, c.num_heads, c.num_kv_heads,
              c.head_dim, input.dilation, c.cu_seqlens, scores.qk.data(), scores.kq.data()},
             parallel_for);
  EXPECT_EQ(scores.qk.back(), kCanary);
  EXPECT_EQ(scores.kq.back(), kCanary);
  scores.qk.pop_back();
  scores.kq.pop_back();
  return scores;
}

Tensor magnitudes(Tensor x) {
  for (double& value : x.values) value = std::abs(value);
  return x;
}

/// An output is a sum of products that go through at most 4 roundings a step of the recurrence and D + 8 after it (the
/// sum over channels, the norm and its store), and the same sums over magnitudes bound what each of them can add.
void expect_near(const Tensor& actual, const Tensor& expected, const Tensor& bound, const GlaInput& input,
                 double epsilon) {
  const int64_t steps = input.c.seq_len / input.dilation + 1;
  const auto roundings = static_cast<double>(4 * steps + input.c.head_dim + 8);
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double limit = roundings * epsilon * bound.values[i] + std::ldexp(expected.values[i], -24);
    ASSERT_LE(std::abs(actual.values[i] - expected.values[i]), limit)
        << "score " << i << " is " << actual.values[i] << ", not " << expected.values[i];
  }
}

TEST(GlaScores, AreWithinRounding) {
  CaseGenerator random(22);
  for (int i = 0; i < 60; ++i) {
    const DType dtype = random.one_of(kDTypes);
    const GlaInput input = random_gla(random, dtype);
    SCOPED_TRACE(testing::PrintToString(input.c) + "dilation " + std::to_string(input.dilation) + " dtype " +
                 std::to_string(static_cast<int>(dtype)));
    const reference::Sequence sequence = input.c.sequence();
    const Scores expected = reference::gla_scores(input.q, input.k, input.v, input.gate, input.dilation, sequence);
    const Scores bound = reference::gla_scores(magnitudes(input.q), magnitudes(input.k), magnitudes(input.v),
                                               input.gate, input.dilation, sequence);
    const FloatScores actual = run_gla(input, dtype, random, test_support::threaded_for(3));
    const double epsilon = std::ldexp(1.0, dtype == DType::kFloat64 ? -53 : -24);
    expect_near(score_tensor(actual.qk, input.c), expected.qk, bound.qk, input, epsilon);
    expect_near(score_tensor(actual.kq, input.c), expected.kq, bound.kq, input, epsilon);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(GlaScores, DoNotDependOnThreadsOrMemoryOrder) {
  CaseGenerator random(23);
  for (int i = 0; i < 10; ++i) {
    const DType dtype = random.one_of(kDTypes);
    const GlaInput input = random_gla(random, dtype);
    const FloatScores expected = run_gla(input, dtype, random, serial_for);
    for (int64_t threads = 1; threads <= 4; ++threads) {
      const FloatScores actual = run_gla(input, dtype, random, test_support::threaded_for(threads));
      ASSERT_EQ(actual.qk, expected.qk);
      ASSERT_EQ(actual.kq, expected.kq);
    }
  }
}

/// With gates of 0 and one channel, o is a plain running sum: q_t / sqrt(1) * sum of k v over the class.
TEST(GlaScores, AreRunningSumsWhereNothingIsForgotten) {
  CaseGenerator random(24);
  GlaInput input{};
  StageCase& c = input.c;
  c.batch = c.num_heads = c.num_kv_heads = c.head_dim = 1;
  c.seq_len = 6;
  c.cu_seqlens = {0, 5, 5, 6};
  input.dilation = 2;
  input.q = input.k = input.v = input.gate = Tensor(1, 6, 1, 1);
  input.q.values = {1, 2, 3, 4, 5, 6};
  input.k.values = {1, -1, 1, 1, 2, 3};
  input.v.values = {2, 2, 2, 2, 2, 2};
  const FloatScores scores = run_gla(input, DType::kFloat32, random, serial_for);
  EXPECT_EQ(scores.qk, (std::vector<float>{2, 4, 12, 0, 40, 36}));
  EXPECT_EQ(scores.kq, (std::vector<float>{2, 4, 8, 12, 36, 36}));
}

TEST(GlaScores, NotANumberYieldsToTheOtherHeads) {
  CaseGenerator random(25);
  GlaInput input{};
  StageCase& c = input.c;
  c.batch = c.num_kv_heads = c.head_dim = c.seq_len = 1;
  c.num_heads = 2;
  input.dilation = 4;
  input.q = input.gate = Tensor(1, 1, 2, 1);
  input.k = input.v = Tensor(1, 1, 1, 1);
  input.q.values = {std::nan(""), 3};
  input.k.values = input.v.values = {1};
  FloatScores scores = run_gla(input, DType::kFloat32, random, serial_for);
  EXPECT_EQ(scores.qk[0], 3);
  input.q.values[1] = std::nan("");
  scores = run_gla(input, DType::kFloat32, random, serial_for);
  EXPECT_TRUE(std::isnan(scores.qk[0]));
}

}  // namespace
}  // namespace lighthouse
