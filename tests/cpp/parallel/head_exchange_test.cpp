// Rows for heads and back, over Gloo; over NCCL on GPUs.
#include "parallel/head_exchange.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>

#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

using parallel_test::run_ranks;
using ::testing::HasSubstr;

constexpr int64_t kHeadDim = 3;

at::Tensor random(uint64_t seed, const std::vector<int64_t>& shape, at::ScalarType dtype) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble).to(test_device(), dtype);
}

at::Tensor slice(const at::Tensor& x, int64_t dim, const Span& span) { return x.slice(dim, span.begin, span.end); }

struct Case {
  int64_t num_ranks, batch, num_heads, num_kv_heads;
  at::ScalarType dtype;
};

/// Uneven numbers of rows.
std::vector<Span> rows_of(int64_t num_ranks) {
  std::vector<Span> rows;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t begin = rows.empty() ? 0 : rows.back().end;
    rows.push_back({begin, begin + 1 + (5 * rank + 2) % 4});
  }
  return rows;
}

std::string exchange(World& world, const Case& c) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  const HeadSpans heads(c.num_heads, c.num_kv_heads, world.size());
  const std::vector<Span> rows = rows_of(world.size());
  const auto rank = static_cast<size_t>(world.rank());
  const int64_t num_rows = rows.back().end;

  const at::Tensor whole = random(1, {c.batch, c.num_heads, num_rows, kHeadDim}, c.dtype);
  const at::Tensor mine = slice(whole, 2, rows[rank]).clone().requires_grad_(true);
  const at::Tensor of_heads = to_heads(mine, heads.query, rows, *group);
  if (!of_heads.equal(slice(whole, 1, heads.query[rank]))) return "to_heads";
  const at::Tensor back = to_rows(of_heads, heads.query, rows, *group);
  if (!back.equal(mine)) return "to_rows";
  back.backward(mine.detach());
  if (!mine.grad().equal(mine.detach())) return "gradient of there and back";

  const at::Tensor keys = random(2, {c.batch, c.num_kv_heads, num_rows, kHeadDim}, c.dtype);
  const at::Tensor my_keys = slice(keys, 2, rows[rank]).clone().requires_grad_(true);
  const at::Tensor served = to_heads(my_keys, heads.key, rows, *group);
  if (!served.equal(slice(keys, 1, heads.key[rank]))) return "to_heads of keys";
  const auto gradient_of = [&](size_t other) {
    return random(10 + other, {c.batch, heads.key[other].size(), num_rows, kHeadDim}, c.dtype);
  };
  served.backward(gradient_of(rank));
  const at::ScalarType sum_type = c.dtype == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor sum = keys.to(sum_type).zero_();
  for (size_t other = 0; other < ranks.size(); ++other) {
    slice(sum, 1, heads.key[other]).add_(gradient_of(other).to(sum_type));
  }
  return my_keys.grad().equal(slice(sum, 2, rows[rank]).to(c.dtype)) ? "" : "gradient of keys";
}

TEST(HeadExchanges, MoveRowsToHeadsAndBack) {
  for (const Case& c : std::vector<Case>{{1, 1, 4, 2, at::kFloat},
                                         {2, 2, 4, 4, at::kFloat},
                                         {2, 1, 4, 1, at::kBFloat16},
                                         {4, 1, 8, 2, at::kBFloat16},
                                         {4, 2, 8, 8, at::kDouble},
                                         {3, 1, 6, 1, at::kDouble},
                                         {8, 1, 8, 4, at::kFloat}}) {
    for (const auto& outcome : run_ranks(c.num_ranks, [&](World& world) { return exchange(world, c); })) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << c.num_ranks << " ranks, " << c.num_heads << "/" << c.num_kv_heads << " heads";
    }
  }
}

TEST(HeadExchanges, NeedRanksThatDivideHeads) {
  const auto refusal = [](int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks) -> std::string {
    try {
      HeadSpans(num_heads, num_kv_heads, num_ranks);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal(8, 2, 4), "accepted");
  EXPECT_THAT(refusal(6, 6, 4), HasSubstr("6 query heads for 4 ranks"));
  EXPECT_THAT(refusal(12, 6, 4), HasSubstr("6 key/value heads for 4 ranks"));
}

}  // namespace
}  // namespace lighthouse
