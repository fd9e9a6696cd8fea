// What holds whatever the values are.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class PropertiesTest : public testing::TestWithParam<OpsCase> {
 protected:
  const OpsCase& case_ = GetParam();
  Inputs inputs_ = make_inputs(case_, at::kFloat);
  AttentionOptions options_ = repeatable(options_of(case_, inputs_));

  at::Tensor attend(const Inputs& inputs, const AttentionOptions& options) const {
    return lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  }
  AttentionOptions with_fixed_selection() const {
    AttentionOptions options = options_;
    options.selection = selection_of(case_, inputs_);
    options.gate = std::nullopt;
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Cases, PropertiesTest, testing::ValuesIn(small_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(PropertiesTest, NoOutputMovesWhenLaterTokensDo) {
  const AttentionOptions options = with_fixed_selection();
  const at::Tensor before = attend(inputs_, options);
  for (int64_t token = 0; token + 1 < case_.seq_len; token += 1 + token / 4) {
    Inputs other = make_inputs(case_, at::kFloat);
    for (at::Tensor* x : {&other.q, &other.k, &other.v}) x->slice(1, token + 1).mul_(-3).add_(100);
    const at::Tensor after = attend(other, options);
    ASSERT_TRUE(same_bits(after.slice(1, 0, token + 1), before.slice(1, 0, token + 1))) << "token " << token;
    if (token == 0) {
      ASSERT_FALSE(same_bits(after, before));  // or nothing was tested
    }
  }
}

TEST_P(PropertiesTest, EveryTokenIsCoveredWithCoverPrefix) {
  inputs_.v.fill_(1);  // so is every average, and every output is the number of rows over its token
  const at::Tensor out = attend(inputs_, options_);
  EXPECT_GE(out.min().item<float>(), 1 - 1e-6F);
  EXPECT_LE(out.max().item<float>(), static_cast<float>(case_.config.num_levels) + 1e-5F);
}

TEST_P(PropertiesTest, OnlyTokensBeforeTheFirstRowAreZeroWithoutCoverPrefix) {
  if (!case_.cu_seqlens.empty()) GTEST_SKIP() << "the rule is one document's";
  inputs_.v.fill_(1);
  options_.selection_config.cover_prefix = false;
  const at::Tensor out = attend(inputs_, options_);  // [B, N, H, D]
  OpsCase uncovered = case_;
  uncovered.config.cover_prefix = false;
  const at::Tensor selection = selection_of(uncovered, inputs_);
  const Pyramid pyramid = make_plan(uncovered.config, case_.seq_len).documents[0].pyramid;
  for (int64_t b = 0; b < case_.batch; ++b) {
    for (int64_t head = 0; head < case_.num_heads; ++head) {
      const at::Tensor rows = selection[b][head * case_.num_kv_heads / case_.num_heads];
      int level = 0;
      while (!(rows == pyramid.entry_offset(level)).any().item<bool>()) ++level;
      const at::Tensor is_zero = (out[b].select(1, head).abs().sum(-1) == 0);
      const int64_t num_zero = std::min(pyramid.window(level) - 1, case_.seq_len);
      EXPECT_EQ(is_zero.sum().item<int64_t>(), num_zero);
      EXPECT_EQ(is_zero.slice(0, 0, num_zero).sum().item<int64_t>(), num_zero);
    }
  }
}

TEST_P(PropertiesTest, GivenScoresAndGivenSelectionChangeNothing) {
  const Results plain = results_of(inputs_, options_);
  AttentionOptions with_scores = options_;
  with_scores.gate = std::nullopt;
  with_scores.scores = token_scores(inputs_.q, inputs_.k, inputs_.v, case_.score, options_.gate, case_.offsets());
  const Results scored = results_of(inputs_, with_scores);
  const Results selected = results_of(inputs_, with_fixed_selection());
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(same_bits(plain[i], scored[i])) << kResultNames[i];
    EXPECT_TRUE(same_bits(plain[i], selected[i])) << kResultNames[i];
  }
}

TEST_P(PropertiesTest, TwoRunsGiveTheSameBits) {
  const int threads = at::get_num_threads();
  for (const int num_threads : {threads, 1, 2, 3}) {
    at::set_num_threads(num_threads);
    const Results first = results_of(inputs_, options_);
    const Results again = results_of(inputs_, options_);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(first[i], again[i])) << kResultNames[i] << num_threads;
  }
  at::set_num_threads(threads);
}

// Without the attention in the middle: stock CPU attention lays out its scratch by the number of threads, and the bits
// of its matrix products can depend on how that is aligned.
TEST_P(PropertiesTest, AnyNumberOfThreadsGivesTheSameBits) {
  options_.deterministic = false;
  options_.attention = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return q * (k + v).repeat_interleave(q.size(1) / k.size(1), 1);
  };
  const int threads = at::get_num_threads();
  const Results first = results_of(inputs_, options_);
  for (const int num_threads : {1, 2, 3}) {
    at::set_num_threads(num_threads);
    const Results again = results_of(inputs_, options_);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(first[i], again[i])) << kResultNames[i] << num_threads;
  }
  at::set_num_threads(threads);
}

TEST_P(PropertiesTest, ComposedFromThePublicStepsGivesTheSame) {
  const at::Tensor selection = selection_of(case_, inputs_);
  AttentionOptions options = options_;
  int calls = 0;
  options.deterministic = false;
  options.attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    ++calls;
    return causal_attention(q, k, v);
  };
  const at::Tensor with_callable = attend(inputs_, options);
  EXPECT_GE(calls, 1);
  EXPECT_TRUE(same_attention(with_callable, attend(inputs_, options_)));

  const Rows rows = gather(inputs_.q, inputs_.k, inputs_.v, selection, case_.config, case_.offsets());
  std::vector<int64_t> offsets{0};  // of rows
  for (const Document& d : make_plan(case_.config, case_.seq_len, case_.cu_seqlens).documents) {
    offsets.push_back(d.row_begin + d.num_rows);
  }
  const at::Tensor o_rows = case_.cu_seqlens.empty() ? causal_attention(rows.q, rows.k, rows.v)
                                                     : causal_attention(rows.q, rows.k, rows.v, std::nullopt, offsets);
  const at::Tensor by_steps = scatter(o_rows, selection, case_.seq_len, case_.config, case_.offsets());
  EXPECT_TRUE(same_attention(by_steps, attend(inputs_, options_)));
}

TEST_P(PropertiesTest, ANaNTokenReachesNoEarlierOutputAndLeavesTheSelectionValid) {
  if (case_.score.scorer != Scorer::kNorm) GTEST_SKIP() << "scores of this scorer reach further than the token";
  if (test_device().is_cuda()) GTEST_SKIP() << "stock fp32 attention on CUDA spreads a NaN over its block of rows";
  if (case_.seq_len == 1) GTEST_SKIP() << "stock CPU attention makes 0 of a NaN among fewer than 16 keys";
  const int64_t token = case_.seq_len / 2;
  inputs_.q.slice(1, token, token + 1).fill_(kNan);
  inputs_.k.slice(1, token, token + 1).fill_(kNan);
  const at::Tensor selection = selection_of(case_, inputs_);
  const at::Tensor out = attend(inputs_, options_);
  const at::Tensor exact =
      from_reference(reference::attention(to_reference(inputs_.q), to_reference(inputs_.k), to_reference(inputs_.v),
                                          to_reference_selection(selection), case_.sequence()));
  EXPECT_TRUE(at::equal(out.isnan(), exact.isnan()));
  EXPECT_FALSE(out.slice(1, 0, token).isnan().any().item<bool>());
  EXPECT_TRUE(out.slice(1, token).isnan().any().item<bool>());
  // Giving the selection back checks every value of it.
  AttentionOptions options = options_;
  options.selection = selection;
  EXPECT_TRUE(at::equal(attend(inputs_, options).isnan(), out.isnan()));
}

TEST(OneLevel, IsPlainAttention) {
  if (test_device().is_cuda()) GTEST_SKIP() << "other strides take other stock kernels; AccuracyTest has this case";
  const OpsCase c{"one_level", 2, 150, 4, 2, 16, make_config(3, 1), scored_by(Scorer::kNorm), {}};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const Inputs inputs = make_inputs(c, dtype);
    const Results ours = results_of(inputs, options_of(c, inputs));
    const Results stock = results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      const int64_t copies = dtype == at::kBFloat16 ? 2 : 1;  // of 16 bits, keys are repeated: stock_rules.h
      return at::scaled_dot_product_attention(
                 q.transpose(1, 2).contiguous(), k.transpose(1, 2).repeat_interleave(copies, 1),
                 v.transpose(1, 2).repeat_interleave(copies, 1), std::nullopt, 0.0, true, std::nullopt, true)
          .transpose(1, 2);
    });
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(ours[i], stock[i])) << kResultNames[i] << dtype;
  }
}

TEST(Selection, DoesNotDependOnHowTheScoresAreStored) {
  const at::Tensor s_qk = normal({2, 70, 3}, 1);
  const at::Tensor s_kq = normal({2, 70, 3}, 2);
  const SelectionConfig config = make_config(4, 3, 2);
  EXPECT_TRUE(same_bits(select(s_qk.transpose(1, 2), s_kq.transpose(1, 2), config),
                        select(s_qk.transpose(1, 2).contiguous(), s_kq.transpose(1, 2).contiguous(), config)));
}

TEST(Selection, LongerThanTheScoresOfAllNaN) {
  const at::Tensor scores = normal({1, 1, 64}, 1).fill_(kNan);
  const SelectionConfig config = make_config(4, 3, 2);
  const at::Tensor of_zeros = select(at::zeros_like(scores), at::zeros_like(scores), config);
  EXPECT_TRUE(same_bits(select(scores, scores, config), of_zeros));  // all are equal: the lower index wins
}

}  // namespace
}  // namespace lighthouse::ops_test
