// Ranks that share a row compute the bits of one process: outputs and gradients, of random shapes.
#include "parallel/context_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <numeric>
#include <random>
#include <sstream>

#include "cpp/ops/ops_cases.h"
#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

using ops_test::Inputs;
using ops_test::kResultNames;
using ops_test::OpsCase;
using ops_test::Results;
using parallel_test::run_ranks;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// Of a case and its results.
struct Exactness {
  bool output = true, gradients = true;  ///< whether the bits of one process are asked for
};

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kDouble, at::kHalf};
constexpr Scorer kScorers[] = {Scorer::kNorm, Scorer::kDilated, Scorer::kGla};
#ifdef __SANITIZE_ADDRESS__  // which makes every rank several times slower
constexpr int64_t kNumCases = 8;
#else
constexpr int64_t kNumCases = 60;
#endif

/// A row with a tile or more for each rank, and heads that ranks divide. On CUDA, channels that 16-bit stock kernels
/// take as they are, and no scorer whose scores depend on the number of heads of a call.
OpsCase random_case(std::mt19937& random, int64_t num_ranks) {
  const auto from = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  OpsCase c;
  while (true) {
    c.num_kv_heads = from(0, 1) == 0 ? int64_t{1} << from(0, 3) : num_ranks * from(1, 2);
    c.num_heads = c.num_kv_heads * from(1, 8);
    if (c.num_heads % num_ranks != 0 || c.num_heads > 24) continue;
    if (c.num_kv_heads % num_ranks != 0 && num_ranks % c.num_kv_heads != 0) continue;
    c.head_dim = from(1, 3) * (test_device().is_cpu() ? 4 : 32);
    c.batch = from(1, 2);
    c.seq_len = from(num_ranks, 600);
    const int64_t tile_topk = from(1, 3);
    c.config = {from(1, 4), from(0, 1) == 0 ? 2 : 4, tile_topk * from(1, 3 * num_ranks) - from(0, tile_topk - 1),
                tile_topk, from(0, 3) > 0};
    c.score = {kScorers[from(0, test_device().is_cpu() ? 2 : 0)], from(1, 4)};
    c.cu_seqlens.clear();
    if (from(0, 2) == 0) {
      c.batch = 1;
      c.cu_seqlens = {0, 0};
      while (c.cu_seqlens.back() < c.seq_len) {
        c.cu_seqlens.push_back(std::min(c.seq_len, c.cu_seqlens.back() + from(0, 300)));
      }
    }
    if (static_cast<int64_t>(make_plan(c.config, c.seq_len, c.cu_seqlens).tiles.size()) >= num_ranks) break;
  }
  std::ostringstream name;
  name << "batch " << c.batch << ", " << c.seq_len << " tokens, heads " << c.num_heads << "/" << c.num_kv_heads
       << " of " << c.head_dim << ", L " << c.config.num_levels << ", p " << c.config.pooling_factor << ", k "
       << c.config.topk << ", m " << c.config.tile_topk << ", " << c.score.scorer << ", documents at "
       << at::IntArrayRef(c.cu_seqlens);
  c.name = name.str();
  return c;
}

at::Tensor part(const at::Tensor& x, const Span& tokens) {
  return x.defined() ? x.slice(1, tokens.begin, tokens.end).contiguous() : x;
}
Inputs part(const Inputs& x, const Span& tokens) {
  return {part(x.q, tokens), part(x.k, tokens), part(x.v, tokens), part(x.dout, tokens), part(x.gate, tokens)};
}

/// Stock attention on the CPU, and cuDNN's, treats each head alone. On CUDA other forwards of 16 bits do too, but
/// FlashAttention-2 cuts the sums of its repeatable backward by the number of heads, and fp32 and fp64 are products
/// whose kernels depend on that number.
Exactness exactness(const OpsCase& c, at::ScalarType dtype, int64_t num_ranks) {
  if (test_device().is_cpu()) return {true, c.num_kv_heads >= num_ranks};
  return {dtype == at::kBFloat16 || dtype == at::kHalf, false};
}

/// What differs from the whole by more than is allowed, or "".
std::string difference(const Results& mine, const Results& whole, const Span& tokens, const Exactness& exact) {
  for (size_t i = 0; i < mine.size(); ++i) {
    const at::Tensor expected = part(whole[i], tokens);
    if (ops_test::same_bits(mine[i], expected)) continue;
    const double scale = expected.abs().max().item<double>();
    const double error = (mine[i].to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
    const double rounding = mine[i].scalar_type() == at::kDouble  ? 1e-14
                            : mine[i].scalar_type() == at::kFloat ? 4e-6
                                                                  : 4e-2;
    const bool bits = i == 0 ? exact.output : exact.gradients || (i == 1 && test_device().is_cpu());
    if (!bits && error <= rounding * scale) continue;
    std::ostringstream text;
    text << kResultNames[i] << " differs by " << error << " of " << scale;
    return text.str();
  }
  return "";
}

std::string compare(Group& group, const OpsCase& c, at::ScalarType dtype) {
  const auto rank = static_cast<size_t>(group.rank());
  const Inputs inputs = ops_test::make_inputs(c, dtype);
  const AttentionOptions options = ops_test::repeatable(ops_test::options_of(c, inputs));
  const std::vector<Span> tokens = context_spans(c.config, c.seq_len, group.size(), c.offsets());
  const Inputs mine = part(inputs, tokens[rank]);
  AttentionOptions of_part = options;
  if (mine.gate.defined()) of_part.gate = mine.gate;
  const Results results =
      ops_test::results_of(mine, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return lighthouse_attention(q, k, v, of_part, tokens, group);
      });
  return difference(results, ops_test::results_of(inputs, options), tokens[rank], exactness(c, dtype, group.size()));
}

std::string compare_many(World& world, int64_t num_cases) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  std::mt19937 random(static_cast<unsigned>(world.size()));  // the same on all ranks
  for (int64_t i = 0; i < num_cases; ++i) {
    const OpsCase c = random_case(random, world.size());
    const at::ScalarType dtype = kDtypes[i % 4];
    const std::string text = compare(*group, c, dtype);
    if (!text.empty()) return text + ": " + c.name + ", " + c10::toString(dtype);
  }
  return "";
}

/// Dense attention, on the tokens of ranks that a selection has cut.
std::string compare_dense(World& world) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  for (const std::vector<int64_t>& cu_seqlens : {std::vector<int64_t>{}, std::vector<int64_t>{0, 30, 100, 230}}) {
    OpsCase c{"dense",   1, 230, 8, 4, 8, ops_test::make_config(8, 3, 2, 2), ops_test::scored_by(Scorer::kNorm),
              cu_seqlens};
    const Inputs inputs = ops_test::make_inputs(c, at::kFloat);
    const std::vector<Span> tokens = context_spans(c.config, c.seq_len, world.size(), c.offsets());
    const Span own = tokens[static_cast<size_t>(world.rank())];
    const auto by_row = [](const at::Tensor& x) { return x.transpose(1, 2); };
    const Results whole =
        ops_test::results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return by_row(causal_attention(by_row(q), by_row(k), by_row(v), std::nullopt, c.offsets()));
        });
    const Results mine =
        ops_test::results_of(part(inputs, own), [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return causal_attention(q, k, v, tokens, *group, c.offsets());
        });
    const std::string text = difference(mine, whole, own, exactness(c, at::kFloat, world.size()));
    if (!text.empty()) return text;
  }
  return "";
}

/// Lengths of a model's, where cuDNN runs: as many key/value heads as query heads, and groups of two.
std::string compare_long(World& world) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  std::string text;
  for (const int64_t num_kv_heads : {8, 4}) {
    for (const int64_t seq_len : {32768 + 5, 98304}) {
      OpsCase c{
          "", 1, seq_len, 8, num_kv_heads, 128, ops_test::make_config(seq_len / 64), ops_test::scored_by(Scorer::kNorm),
          {}};
      const Inputs inputs = ops_test::make_inputs(c, at::kBFloat16);
      const AttentionOptions options = ops_test::repeatable(ops_test::options_of(c, inputs));
      const std::vector<Span> tokens = context_spans(c.config, c.seq_len, group->size());
      const Span own = tokens[static_cast<size_t>(group->rank())];
      const Results mine =
          ops_test::results_of(part(inputs, own), [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
            return lighthouse_attention(q, k, v, options, tokens, *group);
          });
      const std::string found = difference(mine, ops_test::results_of(inputs, options), own, {true, true});
      if (!found.empty()) text += detail::concat(seq_len, " tokens, ", num_kv_heads, " kv heads: ", found, "; ");
    }
  }
  return text;
}

class ContextAttentionOfRanks : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Numbers, ContextAttentionOfRanks, testing::Values(1, 2, 3, 4, 8));

TEST_P(ContextAttentionOfRanks, HasTheBitsOfOneProcess) {
  for (const auto& outcome : run_ranks(GetParam(), [](World& world) { return compare_many(world, kNumCases); })) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    EXPECT_EQ(outcome.text, "");
  }
}

TEST(ContextAttention, OfStageTwoHasTheBitsOfOneProcess) {
  for (const int64_t size : {2, 4}) {
    for (const auto& outcome : run_ranks(size, compare_dense)) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "");
    }
  }
}

TEST(ContextAttention, OfLongRowsHasTheBitsOfOneGPU) {
  const char* device = std::getenv("LIGHTHOUSE_TEST_DEVICE");
  if (device == nullptr || !at::Device(device).is_cuda()) GTEST_SKIP() << "too long for a CPU";
  for (const int64_t size : {2, 4}) {
    for (const auto& outcome : run_ranks(size, compare_long)) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << size << " ranks";
    }
  }
}

TEST(ContextAttention, NamesWhatRanksCannotShare) {
  const auto outcomes = run_ranks(2, [](World& world) -> std::string {
    const auto group = world.make_group("context", {0, 1});
    const OpsCase c{"", 1, 64, 2, 2, 8, ops_test::make_config(4, 3, 2, 1), ops_test::scored_by(Scorer::kNorm), {}};
    const Inputs inputs = ops_test::make_inputs(c, at::kFloat);
    const std::vector<Span> tokens = context_spans(c.config, c.seq_len, 2);
    const Inputs mine = part(inputs, tokens[static_cast<size_t>(world.rank())]);
    std::string messages;
    const auto refused = [&](const Inputs& x, AttentionOptions options) {
      try {
        lighthouse_attention(x.q, x.k, x.v, options, tokens, *group);
        messages += "accepted\n";
      } catch (const std::exception& error) {
        messages += std::string(error.what()) + "\n";
      }
    };
    AttentionOptions options = ops_test::options_of(c, mine);
    refused(inputs, options);
    options.selection = at::zeros({1, 2, 4}, at::kInt);
    refused(mine, options);
    options = ops_test::options_of(c, mine);
    options.selection_config.topk = 3;
    refused(mine, options);
    const auto heads = [](const at::Tensor& x) { return x.slice(2, 0, 1).contiguous(); };
    refused({heads(mine.q), heads(mine.k), heads(mine.v), {}, {}}, ops_test::options_of(c, mine));
    return messages;
  });
  for (const auto& outcome : outcomes) {
    EXPECT_THAT(outcome.text, AllOf(HasSubstr("owns 32 tokens"), HasSubstr("a selection cannot be given"),
                                    HasSubstr("inside of a tile for k = 3"), HasSubstr("1 query heads for 2 ranks"),
                                    Not(HasSubstr("accepted"))));
  }
}

}  // namespace
}  // namespace lighthouse
