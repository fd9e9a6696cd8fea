// The reference against the authors' implementation, and the CPU selection against both.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "lighthouse/parallel_for.h"
#include "lighthouse/select.h"
#include "reference/lighthouse.h"
#include "support/golden.h"

namespace lighthouse {
namespace {

using reference::Scores;
using reference::Selection;
using reference::Tensor;
using test_support::Golden;
using test_support::golden_input;
using test_support::GoldenInput;

/// Stored [B, N, H, D], or [B, H, N, D] where `heads_first`; scores have D = 1.
Tensor to_tensor(const std::vector<float>& values, const Golden& golden, int64_t channels, bool heads_first) {
  Tensor tensor(golden.number("B"), golden.number("N"), golden.number("H"), channels);
  size_t next = 0;
  for (int64_t b = 0; b < tensor.batch; ++b) {
    for (int64_t i = 0; i < (heads_first ? tensor.heads : tensor.length); ++i) {
      for (int64_t j = 0; j < (heads_first ? tensor.length : tensor.heads); ++j) {
        double* target = heads_first ? tensor.at(b, j, i) : tensor.at(b, i, j);
        for (int64_t c = 0; c < channels; ++c) target[c] = values[next++];
      }
    }
  }
  return tensor;
}

/// Errors of an implementation in double, measured when the data was made: largest absolute and relative 2-norm. They
/// are the data's own fp32 rounding, so any correct double implementation finds the same, and were noted to two digits.
struct Bound {
  double absolute, relative;
};
double with_half_of_last_digit(double two_digits) {
  return two_digits + 0.5 * std::pow(10, std::floor(std::log10(two_digits)) - 1);
}

void expect_near(const Tensor& actual, const Tensor& expected, const Bound& bound, const std::string& what) {
  ASSERT_EQ(actual.values.size(), expected.values.size()) << what;
  double largest = 0;
  double error = 0;
  double norm = 0;
  size_t worst = 0;
  for (size_t i = 0; i < actual.values.size(); ++i) {
    const double difference = std::abs(actual.values[i] - expected.values[i]);
    if (!(difference <= largest)) worst = i;
    if (!(difference <= largest)) largest = difference;
    error += difference * difference;
    norm += expected.values[i] * expected.values[i];
  }
  EXPECT_LE(largest, with_half_of_last_digit(bound.absolute))
      << what << " at " << worst << ": " << actual.values[worst] << " against " << expected.values[worst];
  EXPECT_LE(std::sqrt(error / norm), with_half_of_last_digit(bound.relative)) << what;
}

class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  GoldenTest() {
    const auto input = [&](GoldenInput name) {
      return golden_input(golden.number("seed"), name,
                          golden.number("B") * golden.number("N") * golden.number("H") * golden.number("D"));
    };
    q = to_tensor(input(GoldenInput::kQ), golden, golden.number("D"), false);
    k = to_tensor(input(GoldenInput::kK), golden, golden.number("D"), false);
    v = to_tensor(input(GoldenInput::kV), golden, golden.number("D"), false);
    grad_out = to_tensor(input(GoldenInput::kGradOut), golden, golden.number("D"), true);
  }

  Tensor stored(const std::string& name, bool heads_first = true) const {
    const bool is_score = golden.shape(name).size() == 3;
    return to_tensor(golden.floats(name), golden, is_score ? 1 : golden.number("D"), heads_first);
  }
  Selection stored_selection(const std::string& scorer) const {
    return {golden.number("B"), golden.number("H"), golden.number("S"), golden.ints(scorer + ".idx")};
  }
  Scores scores(const std::string& scorer) const {
    return scorer == "norm" ? reference::norm_scores(q, k)
                            : reference::dilated_scores(q, k, v, golden.number("dilation"), sequence);
  }

  Golden golden{GetParam()};
  reference::Sequence sequence{golden.number("N"), golden.config(), {}};
  Tensor q, k, v, grad_out;
};

TEST_P(GoldenTest, InputsFollowTheirFormula) {
  EXPECT_EQ(stored("q", false).values, q.values);
  EXPECT_EQ(stored("k", false).values, k.values);
  EXPECT_EQ(stored("v", false).values, v.values);
  EXPECT_EQ(stored("grad_out").values, grad_out.values);
}

TEST_P(GoldenTest, LengthFollowsItsFormula) {
  EXPECT_EQ(gathered_length(sequence.seq_len, sequence.config), golden.number("S"));
}

TEST_P(GoldenTest, ReferenceScores) {
  const Scores norm = scores("norm");
  expect_near(norm.qk, stored("norm.s_qk"), {1.2e-6, 3.5e-8}, "norm.s_qk");
  expect_near(norm.kq, stored("norm.s_kq"), {1.2e-6, 3.5e-8}, "norm.s_kq");
  const Scores dilated = scores("dilated");
  expect_near(dilated.qk, stored("dilated.s_qk"), {3.1e-6, 3.7e-7}, "dilated.s_qk");
  expect_near(dilated.kq, stored("dilated.s_kq"), {3.1e-6, 3.7e-7}, "dilated.s_kq");
}

TEST_P(GoldenTest, ReferenceSelectsTheStoredEntries) {
  for (const std::string scorer : {"norm", "dilated"}) {
    SCOPED_TRACE(scorer);
    const std::vector<int32_t> expected = golden.ints(scorer + ".idx");
    EXPECT_EQ(reference::select(scores(scorer), sequence).entries, expected) << "from the inputs";
    const Scores stored_scores{stored(scorer + ".s_qk"), stored(scorer + ".s_kq")};
    EXPECT_EQ(reference::select(stored_scores, sequence).entries, expected) << "from the stored scores";
  }
}

TEST_P(GoldenTest, CpuSelectsTheStoredEntries) {
  const SequencePlan plan = make_plan(sequence.config, sequence.seq_len);
  for (const std::string scorer : {"norm", "dilated"}) {
    SCOPED_TRACE(scorer);
    const std::vector<int32_t> expected = golden.ints(scorer + ".idx");
    const std::vector<float> s_qk = golden.floats(scorer + ".s_qk");
    const std::vector<float> s_kq = golden.floats(scorer + ".s_kq");
    std::vector<int32_t> selection(expected.size());
    std::vector<int32_t> slots(golden.number("B") * golden.number("H") * plan.num_slots);
    select_entries(
        {s_qk.data(), s_kq.data(), &plan, golden.number("B"), golden.number("H"), selection.data(), slots.data()},
        serial_for);
    EXPECT_EQ(selection, expected);
  }
}

TEST_P(GoldenTest, ReferenceOutput) {
  for (const std::string scorer : {"norm", "dilated"}) {
    const Tensor expected = stored(scorer + ".o");
    const Tensor o = reference::attention(q, k, v, stored_selection(scorer), sequence);
    expect_near(o, expected, {1.5e-6, 4.0e-7}, scorer + ".o");
    for (size_t i = 0; i < o.values.size(); ++i) {
      ASSERT_EQ(o.values[i] == 0, expected.values[i] == 0) << scorer << ".o at " << i << ": exact zeros differ";
    }
  }
}

TEST_P(GoldenTest, ReferenceGradients) {
  const auto [dq, dk, dv] = reference::attention_backward(q, k, v, stored_selection("norm"), grad_out, sequence);
  expect_near(dq, stored("norm.dq", false), {2.4e-6, 8.3e-7}, "norm.dq");
  expect_near(dk, stored("norm.dk", false), {1.8e-6, 8.5e-7}, "norm.dk");
  expect_near(dv, stored("norm.dv", false), {3.8e-6, 4.6e-7}, "norm.dv");
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, testing::Values("a", "f"),
                         [](const auto& param_info) { return std::string("case_") + param_info.param; });

}  // namespace
}  // namespace lighthouse
