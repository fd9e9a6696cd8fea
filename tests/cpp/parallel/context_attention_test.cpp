// Ranks that share a row compute the bits of one process: outputs and gradients, of random shapes.
#include "parallel/context_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <array>
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
using parallel_test::on_gpus;
using parallel_test::run_ranks;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// Of a case and its results: whether the bits of one process are asked for.
struct Exactness {
  bool output, dq, dk_dv;
};

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kDouble, at::kHalf};
constexpr Scorer kScorers[] = {Scorer::kNorm, Scorer::kDilated, Scorer::kGla};
#ifdef __SANITIZE_ADDRESS__  // which makes every rank several times slower
constexpr int64_t kNumCases = 8, kNumCasesOfRows = 4;
#else
constexpr int64_t kNumCases = 60, kNumCasesOfRows = 24;
#endif

/// Whether ranks have a part of the rows of their heads.
bool share_rows(const OpsCase& c, int64_t num_ranks) {
  return HeadSpans(c.num_heads, c.num_kv_heads, num_ranks).num_row_groups > 1;
}

/// A row with a tile or more for each rank, of whose heads ranks have all rows, or a part of them. On CUDA, channels
/// that 16-bit stock kernels take as they are, and no scorer whose scores depend on the number of heads of a call.
OpsCase random_case(std::mt19937& random, int64_t num_ranks, bool of_rows) {
  const auto from = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  OpsCase c;
  while (true) {
    c.num_kv_heads = from(0, 1) == 0 ? int64_t{1} << from(0, 3) : num_ranks * from(1, 2);
    c.num_heads = c.num_kv_heads * from(1, 8);
    if (c.num_heads > 24 || share_rows(c, num_ranks) != of_rows) continue;
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
  if (share_rows(c, num_ranks)) return {false, false, false};  // parts of the keys are merged
  if (test_device().is_cpu()) return {true, true, c.num_kv_heads >= num_ranks};
  return {dtype == at::kBFloat16 || dtype == at::kHalf, false, false};
}

/// What differs from the whole by more than is allowed, or "".
std::string difference(const Results& mine, const Results& whole, const Span& tokens, const Exactness& exact) {
  for (size_t i = 0; i < mine.size(); ++i) {
    const at::Tensor expected = part(whole[i], tokens);
    if (same_bits(mine[i], expected)) continue;
    const double scale = expected.abs().max().item<double>();
    const double error = (mine[i].to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
    const double rounding = mine[i].scalar_type() == at::kDouble  ? 1e-14
                            : mine[i].scalar_type() == at::kFloat ? 4e-6
                                                                  : 4e-2;
    const bool bits = i == 0 ? exact.output : i == 1 ? exact.dq : exact.dk_dv;
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
  const auto run = [&] {
    return ops_test::results_of(mine, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return lighthouse_attention(q, k, v, of_part, tokens, group);
    });
  };
  const Results results = run();
  if (share_rows(c, group.size())) {
    const Results again = run();
    for (size_t i = 0; i < again.size(); ++i) {
      if (!same_bits(again[i], results[i])) return std::string("another time another ") + kResultNames[i];
    }
  }
  return difference(results, ops_test::results_of(inputs, options), tokens[rank], exactness(c, dtype, group.size()));
}

std::string compare_many(World& world, int64_t num_cases, bool of_rows) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  std::mt19937 random(static_cast<unsigned>(world.size()));  // the same on all ranks
  for (int64_t i = 0; i < num_cases; ++i) {
    const OpsCase c = random_case(random, world.size(), of_rows);
    const at::ScalarType dtype = kDtypes[i % 4];
    const std::string text = compare(*group, c, dtype);
    if (!text.empty()) return text + ": " + c.name + ", " + c10::toString(dtype);
  }
  return "";
}

/// Dense attention, on the tokens of ranks that a selection has cut.
std::string compare_dense(World& world, int64_t num_heads, int64_t num_kv_heads) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  for (const std::vector<int64_t>& cu_seqlens : {std::vector<int64_t>{}, std::vector<int64_t>{0, 30, 100, 230}}) {
    OpsCase c{"dense",
              1,
              230,
              num_heads,
              num_kv_heads,
              8,
              ops_test::make_config(8, 3, 2, 1),
              ops_test::scored_by(Scorer::kNorm),
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
      const std::string found = difference(mine, ops_test::results_of(inputs, options), own, {true, true, true});
      if (!found.empty()) text += detail::concat(seq_len, " tokens, ", num_kv_heads, " kv heads: ", found, "; ");
    }
  }
  return text;
}

class ContextAttentionOfRanks : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Numbers, ContextAttentionOfRanks, testing::Values(1, 2, 3, 4, 8));

TEST_P(ContextAttentionOfRanks, HasTheBitsOfOneProcess) {
  for (const auto& outcome :
       run_ranks(GetParam(), [](World& world) { return compare_many(world, kNumCases, false); })) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    EXPECT_EQ(outcome.text, "");
  }
}

TEST_P(ContextAttentionOfRanks, ThatShareRowsIsNearThatOfOneProcess) {
  if (GetParam() == 1) GTEST_SKIP() << "one rank has all rows";
  const auto outcomes = run_ranks(GetParam(), [](World& world) { return compare_many(world, kNumCasesOfRows, true); });
  for (const auto& outcome : outcomes) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    EXPECT_EQ(outcome.text, "");
  }
}

TEST(ContextAttention, OfStageTwoIsThatOfOneProcess) {
  for (const auto& [size, num_heads, num_kv_heads] :
       std::vector<std::array<int64_t, 3>>{{2, 8, 4}, {2, 1, 1}, {4, 8, 4}, {4, 2, 2}, {8, 2, 1}, {8, 4, 2}}) {
    for (const auto& outcome :
         run_ranks(size, [&](World& world) { return compare_dense(world, num_heads, num_kv_heads); })) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << size << " ranks, " << num_heads << "/" << num_kv_heads << " heads";
    }
  }
}

/// In fp32 and 16 bits, errors against fp64 under the selection of one process, beside those of one process; and scores
/// that are its bits.
std::string compare_with_exact(World& world, int64_t num_heads, int64_t num_kv_heads) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    OpsCase c{"",
              1,
              1000,
              num_heads,
              num_kv_heads,
              16,
              ops_test::make_config(16, 3, 2, 1),
              ops_test::scored_by(test_device().is_cpu() ? Scorer::kDilated : Scorer::kNorm),
              {}};
    const Inputs inputs = ops_test::make_inputs(c, dtype);
    const AttentionOptions options = ops_test::repeatable(ops_test::options_of(c, inputs));
    const std::vector<Span> tokens = context_spans(c.config, c.seq_len, world.size());
    const Span own = tokens[static_cast<size_t>(world.rank())];
    const Inputs mine = part(inputs, own);
    const auto row = c10::make_intrusive<ContextRow>(c.config, 1, std::nullopt, num_heads, num_kv_heads,
                                                     RowShare{tokens, group.get()});
    const auto [s_qk, s_kq] = token_scores(mine.q, mine.k, mine.v, c.score, std::nullopt, row);
    const auto [whole_qk, whole_kq] = token_scores(inputs.q, inputs.k, inputs.v, c.score);
    const auto columns = [&](const at::Tensor& scores) { return scores.slice(2, own.begin, own.end); };
    if (!same_bits(s_qk, columns(whole_qk)) || !same_bits(s_kq, columns(whole_kq))) return "scores";

    AttentionOptions exactly = options;
    exactly.selection = ops_test::selection_of(c, inputs);
    const auto exact_part = [](const at::Tensor& x) { return x.to(at::kDouble); };
    const Inputs in_fp64{exact_part(inputs.q), exact_part(inputs.k), exact_part(inputs.v), exact_part(inputs.dout), {}};
    const Results exact = ops_test::results_of(in_fp64, exactly), stock = ops_test::results_of(inputs, options);
    const Results results =
        ops_test::results_of(mine, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return lighthouse_attention(q, k, v, options, tokens, *group);
        });
    for (size_t i = 0; i < results.size(); ++i) {
      const at::Tensor expected = part(exact[i], own);
      const auto norm_of_error = [&](const at::Tensor& x) { return (exact_part(x) - expected).norm().item<double>(); };
      const double error = norm_of_error(results[i]), of_stock = norm_of_error(part(stock[i], own));
      if (error > (i == 0 ? 2 : 1.5) * of_stock)
        return detail::concat(kResultNames[i], ": error ", error, ", of stock ", of_stock);
    }
  }
  return "";
}

TEST(ContextAttention, OfRanksThatShareRowsErrsLittleMoreThanStock) {
  for (const auto& [size, num_heads, num_kv_heads] :
       std::vector<std::array<int64_t, 3>>{{2, 1, 1}, {4, 2, 2}, {4, 4, 4}, {8, 2, 1}, {8, 4, 2}}) {
    for (const auto& outcome :
         run_ranks(size, [&](World& world) { return compare_with_exact(world, num_heads, num_kv_heads); })) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << size << " ranks, " << num_heads << "/" << num_kv_heads << " heads";
    }
  }
}

TEST(ContextAttention, OfLongRowsHasTheBitsOfOneGPU) {
  if (!on_gpus()) GTEST_SKIP() << "too long for a CPU";
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
    const auto refused = [&](const Inputs& x, const AttentionOptions& options) {
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
    options = ops_test::options_of(c, mine);
    options.attention = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) { return x; };
    refused({heads(mine.q), heads(mine.k), heads(mine.v), {}, {}}, options);
    return messages;
  });
  for (const auto& outcome : outcomes) {
    EXPECT_THAT(outcome.text,
                AllOf(HasSubstr("owns 32 tokens"), HasSubstr("a selection cannot be given"),
                      HasSubstr("inside of a tile for k = 3"),
                      HasSubstr("`attention` is given, but 2 ranks share 1 heads"), Not(HasSubstr("accepted"))));
  }
}

}  // namespace
}  // namespace lighthouse
