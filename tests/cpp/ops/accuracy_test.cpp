// Errors against the fp64 reference under the same selection, beside those of stock operators in the same dtype.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <random>
#include <set>
#include <sstream>

#include "bench/composed_attention.h"
#include "ops_cases.h"
#include "support/environment_number.h"

namespace lighthouse::ops_test {
namespace {

std::vector<OpsCase> unpacked_cases() {
  std::vector<OpsCase> cases;
  for (const OpsCase& c : small_cases()) {
    if (c.cu_seqlens.empty()) cases.push_back(c);
  }
  cases.push_back({"longer", 1, 700, 4, 2, 32, make_config(12, 3, 4, 8), scored_by(Scorer::kNorm), {}});
  return cases;
}

Results exact_results(const OpsCase& c, const Inputs& inputs, const at::Tensor& selection) {
  const auto [q, k, v, dout, gate] = inputs;
  const reference::Selection rows = to_reference_selection(selection);
  const auto gradients = reference::attention_backward(to_reference(q), to_reference(k), to_reference(v), rows,
                                                       to_reference(dout), c.sequence());
  return {from_reference(reference::attention(to_reference(q), to_reference(k), to_reference(v), rows, c.sequence())),
          from_reference(gradients.dq), from_reference(gradients.dk), from_reference(gradients.dv)};
}

Results stock_results(const OpsCase& c, const Inputs& inputs, const at::Tensor& selection) {
  return results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return bench::composed_attention(q, k, v, selection, c.config);
  });
}

double epsilon(at::ScalarType dtype) {
  if (dtype == at::kDouble) return std::ldexp(1.0, -52);
  if (dtype == at::kFloat) return std::ldexp(1.0, -23);
  return dtype == at::kHalf ? std::ldexp(1.0, -10) : std::ldexp(1.0, -7);
}

class AccuracyTest : public testing::TestWithParam<std::tuple<OpsCase, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, AccuracyTest,
                         testing::Combine(testing::ValuesIn(unpacked_cases()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "_" + c10::toString(std::get<1>(test.param));
                         });

TEST_P(AccuracyTest, ErrsAtMostTwiceAsFarAsStockOperators) {
  const auto& [c, dtype] = GetParam();
  const Inputs inputs = make_inputs(c, dtype);
  const at::Tensor selection = selection_of(c, inputs);
  const Results exact = exact_results(c, inputs, selection);
  const Results stock = stock_results(c, inputs, selection);
  const Results ours = results_of(inputs, options_of(c, inputs));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(ours[i].scalar_type(), dtype);
    // Where stock operators happen to be exact, one rounding of the largest value is left.
    const double rounding = epsilon(dtype) * exact[i].abs().max().item<double>();
    EXPECT_LE(max_error(ours[i], exact[i]), 2 * max_error(stock[i], exact[i]) + rounding) << kResultNames[i];
  }
}

/// Shapes that nobody chose, up to 1,048,576 tokens on a GPU. Wanted of S is a remainder modulo 128, the rows of a
/// block.
class RandomShapes {
 public:
  explicit RandomShapes(int seed) : random_(static_cast<uint64_t>(seed)) {}

  OpsCase next(int64_t remainder) {
    while (true) {
      OpsCase c;
      c.config =
          make_config(1 + log_uniform(kMostRows / 4), 2 + below(3), int64_t{2} << below(3), int64_t{8} << below(5));
      c.num_kv_heads = 1 + below(2);
      c.num_heads = c.num_kv_heads << below(2);
      c.head_dim = int64_t{16} << below(4);
      const int64_t most_tokens = test_device().is_cuda() ? 1 << 20 : 1500;
      c.seq_len = std::min(log_uniform(most_tokens), kMostValues / (c.num_heads * c.head_dim));
      for (int tries = 0; tries < 20'000 && c.seq_len > 0; ++tries, --c.seq_len) {
        const int64_t rows = gathered_length(c.seq_len, c.config);
        if (rows >= c.seq_len) break;  // attended to in full
        if (rows <= kMostRows && rows % 128 == remainder) return named(c, rows);
      }
    }
  }

 private:
  static constexpr int64_t kMostRows = 6144;         // fp64 has matrices of rows by rows
  static constexpr int64_t kMostValues = 160 << 20;  // of q

  int64_t below(int64_t end) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(end)); }
  int64_t log_uniform(int64_t most) {
    return static_cast<int64_t>(std::exp(std::log(double(most)) * double(random_()) / double(random_.max())));
  }
  static OpsCase named(OpsCase c, int64_t rows) {
    std::ostringstream name;
    name << "N " << c.seq_len << ", S " << rows << ", heads " << c.num_heads << "/" << c.num_kv_heads << " of "
         << c.head_dim << ", L " << c.config.num_levels << ", p " << c.config.pooling_factor << ", k " << c.config.topk
         << ", tile " << c.config.tile_topk;
    c.name = name.str();
    return c;
  }

  std::mt19937_64 random_;
};

Inputs random_inputs(const OpsCase& c, at::ScalarType dtype) {
  const auto drawn = [&](int64_t heads) {
    return at::randn({c.batch, c.seq_len, heads, c.head_dim}, at::TensorOptions(test_device()).dtype(at::kFloat))
        .to(dtype);
  };
  return {drawn(c.num_heads), drawn(c.num_kv_heads), drawn(c.num_kv_heads), drawn(c.num_heads), {}};
}

/// LIGHTHOUSE_TEST_SHAPES of them.
TEST(RandomShapesAccuracy, ErrsAtMostTwiceAsFarAndThriceInGradients) {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::manual_seed(7);
  RandomShapes shapes(environment_number("LIGHTHOUSE_TEST_SEED", 7));
  constexpr at::ScalarType kDtypes[] = {at::kBFloat16, at::kFloat, at::kHalf};
  std::set<int64_t> remainders;
  int64_t longest = 0;
  double worst[4] = {};
  const int count = environment_number("LIGHTHOUSE_TEST_SHAPES", 6);
  for (int i = 0; i < count; ++i) {
    const OpsCase c = shapes.next(i % 128);
    const Inputs inputs = random_inputs(c, kDtypes[i % 3]);
    const at::Tensor selection = selection_of(c, inputs);
    const auto in_fp64 = [](const at::Tensor& x) { return x.defined() ? x.to(at::kDouble) : x; };
    const Inputs wide{in_fp64(inputs.q), in_fp64(inputs.k), in_fp64(inputs.v), in_fp64(inputs.dout), {}};
    const Results exact = stock_results(c, wide, selection);
    const Results stock = stock_results(c, inputs, selection);
    const Results ours = results_of(inputs, options_of(c, inputs));
    for (int part = 0; part < 4; ++part) {
      const double rounding = epsilon(kDtypes[i % 3]) * exact[part].abs().max().item<double>();
      const double error = max_error(ours[part], exact[part]), stock_error = max_error(stock[part], exact[part]);
      EXPECT_LE(error, (part == 0 ? 2 : 3) * stock_error + rounding) << kResultNames[part] << " of " << c.name;
      worst[part] = std::max(worst[part], error / (stock_error + rounding));
    }
    remainders.insert(selection.size(2) % 128);
    longest = std::max(longest, c.seq_len);
  }
  std::cout << count << " shapes up to " << longest << " tokens, " << remainders.size()
            << " remainders of S; errors over stock's (and "
            << "a rounding): o " << worst[0] << ", dq " << worst[1] << ", dk " << worst[2] << ", dv " << worst[3]
            << "\n";
  EXPECT_EQ(static_cast<int>(remainders.size()), std::min(count, 128));
}

class Fp64Test : public testing::TestWithParam<OpsCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, Fp64Test, testing::ValuesIn(unpacked_cases()),
                         [](const auto& test) { return test.param.name; });

/// Sums of at most a few thousand terms of size 1 to 10 are rounded to 1e-12 in fp64.
constexpr double kFp64Bound = 1e-11;

TEST_P(Fp64Test, EqualsTheReference) {
  const OpsCase& c = GetParam();
  const Inputs inputs = make_inputs(c, at::kDouble);
  const at::Tensor selection = selection_of(c, inputs);
  const Results exact = exact_results(c, inputs, selection);
  const Results ours = results_of(inputs, options_of(c, inputs));
  const Results stock = stock_results(c, inputs, selection);  // so that it can stand for the reference in benchmarks
  for (int i = 0; i < 4; ++i) {
    EXPECT_LE(max_error(ours[i], exact[i]), kFp64Bound) << kResultNames[i];
    EXPECT_LE(max_error(stock[i], exact[i]), kFp64Bound) << "composed " << kResultNames[i];
  }
}

TEST(PackedAccuracy, EqualsTheReferenceInFp64) {
  for (const OpsCase& c : small_cases()) {
    if (c.cu_seqlens.empty()) continue;
    const Inputs inputs = make_inputs(c, at::kDouble);
    const Results exact = exact_results(c, inputs, selection_of(c, inputs));
    const Results ours = results_of(inputs, options_of(c, inputs));
    for (int i = 0; i < 4; ++i) EXPECT_LE(max_error(ours[i], exact[i]), kFp64Bound) << c.name << kResultNames[i];
  }
}

TEST(SoftmaxScale, ReachesTheAttention) {
  const OpsCase c = small_cases()[1];
  const Inputs inputs = make_inputs(c, at::kDouble);
  AttentionOptions options = options_of(c, inputs);
  options.softmax_scale = 0.3;
  const at::Tensor exact =
      from_reference(reference::attention(to_reference(inputs.q), to_reference(inputs.k), to_reference(inputs.v),
                                          to_reference_selection(selection_of(c, inputs)), c.sequence(), 0.3));
  EXPECT_LE(max_error(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), exact), kFp64Bound);
}

}  // namespace
}  // namespace lighthouse::ops_test
