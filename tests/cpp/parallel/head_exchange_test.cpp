// Rows for heads and back, over Gloo; over NCCL on GPUs.
#include "parallel/head_exchange.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>
#include <utility>

#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

using parallel_test::run_ranks;
using ::testing::HasSubstr;

at::Tensor random(uint64_t seed, const std::vector<int64_t>& shape, at::ScalarType dtype) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble).to(test_device(), dtype);
}

at::Tensor slice(const at::Tensor& x, int64_t dim, const Span& span) { return x.slice(dim, span.begin, span.end); }

struct Case {
  int64_t num_ranks, batch, num_heads, num_kv_heads;
  at::ScalarType dtype;
  int64_t head_dim = 3;
  bool rows_innermost = false;  // as some attention leaves its gradients
};

at::Tensor laid_out(const at::Tensor& x, const Case& c) {
  return c.rows_innermost ? x.transpose(1, 3).contiguous().transpose(1, 3) : x;
}

/// Uneven numbers of rows.
std::vector<Span> rows_of(int64_t num_ranks) {
  std::vector<Span> rows;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t begin = rows.empty() ? 0 : rows.back().end;
    rows.push_back({begin, begin + 1 + (5 * rank + 2) % 4});
  }
  return rows;
}

at::Tensor slice(const at::Tensor& x, const HeadBlock& block, const HeadLayout& layout) {
  return slice(slice(x, layout.heads, block.heads), layout.rows, block.rows);
}

/// q, k and v there and back, in one layout.
std::string exchange(Group& group, const Case& c, const HeadLayout& layout) {
  const std::vector<Span> rows = rows_of(group.size());
  const int64_t num_rows = rows.back().end;
  const AttendedBlocks attended(HeadSpans(c.num_heads, c.num_kv_heads, group.size()), {0, 1, num_rows - 1});
  const std::vector<std::vector<HeadBlock>> heads = attended.of_qkv();
  const auto rank = static_cast<size_t>(group.rank());
  const auto shape = [&](int64_t of_heads, int64_t of_rows) {
    std::vector<int64_t> sizes{c.batch, of_heads, of_rows, c.head_dim};
    if (layout.heads == kRowsFirst.heads) std::swap(sizes[1], sizes[2]);
    return sizes;
  };

  std::vector<at::Tensor> whole, mine;
  for (size_t i = 0; i < heads.size(); ++i) {
    whole.push_back(random(i, shape(heads[i].back().heads.end, num_rows), c.dtype));
    mine.push_back(laid_out(slice(whole[i], layout.rows, rows[rank]).clone(), c).requires_grad_(true));
  }
  const HeadExchange exchange{heads, rows, &group, layout};
  const int64_t sent_before = group.sent().contains(kRowsForHeads) ? group.sent().at(kRowsForHeads).collectives : 0;
  const std::vector<at::Tensor> of_heads = to_heads(mine, exchange);
  for (size_t i = 0; i < heads.size(); ++i) {
    if (!of_heads[i].equal(slice(whole[i], heads[i][rank], layout))) return detail::concat("to_heads of ", i);
    if (!of_heads[i].is_contiguous()) return detail::concat("strides of ", i);
  }
  if (group.size() > 1 && group.sent().at(kRowsForHeads).collectives != sent_before + 1) return "q, k, v apart";
  const at::Tensor back = to_rows({of_heads[0]}, {{attended.query}, rows, &group, layout})[0];
  if (!back.equal(mine[0])) return "to_rows";

  const auto gradient_of = [&](size_t i, size_t other) {
    const HeadBlock& block = heads[i][other];
    return laid_out(random(10 + 10 * i + other, shape(block.heads.size(), block.rows.size()), c.dtype), c);
  };
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < heads.size(); ++i) gradients.push_back(gradient_of(i, rank));
  torch::autograd::backward(of_heads, gradients);
  const at::ScalarType sum_type = c.dtype == at::kDouble ? at::kDouble : at::kFloat;
  for (size_t i = 0; i < heads.size(); ++i) {
    at::Tensor sum = at::zeros(whole[i].sizes(), whole[i].options().dtype(sum_type));
    for (size_t other = 0; other < heads[i].size(); ++other) {
      slice(sum, heads[i][other], layout).add_(gradient_of(i, other).to(sum_type));
    }
    if (!mine[i].grad().equal(slice(sum, layout.rows, rows[rank]).to(c.dtype)))
      return detail::concat("gradient of ", i);
    mine[i].mutable_grad() = at::Tensor();
  }
  to_rows(to_heads({mine[0]}, {{attended.query}, rows, &group, layout}), {{attended.query}, rows, &group, layout})[0]
      .backward(mine[0].detach());
  return mine[0].grad().equal(mine[0].detach()) ? "" : "gradient of there and back";
}

std::string exchange_in_both_layouts(World& world, const Case& c) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("context", ranks);
  const std::string heads_first = exchange(*group, c, kHeadsFirst), rows_first = exchange(*group, c, kRowsFirst);
  return heads_first + (rows_first.empty() ? "" : "; rows first: " + rows_first);
}

TEST(HeadExchanges, MoveRowsToHeadsAndBack) {
  for (const Case& c : std::vector<Case>{{1, 1, 4, 2, at::kFloat},
                                         {2, 2, 4, 4, at::kFloat},
                                         {2, 1, 4, 1, at::kBFloat16},
                                         {2, 1, 6, 2, at::kHalf, 16},
                                         {2, 2, 4, 2, at::kDouble, 32, true},
                                         {2, 1, 1, 1, at::kFloat},
                                         {3, 1, 6, 1, at::kDouble},
                                         {3, 1, 2, 1, at::kHalf},
                                         {4, 1, 8, 2, at::kBFloat16, 8},
                                         {4, 2, 8, 8, at::kDouble},
                                         {4, 1, 2, 2, at::kBFloat16, 8},
                                         {4, 2, 6, 6, at::kFloat},
                                         {8, 1, 8, 4, at::kFloat},
                                         {8, 2, 4, 2, at::kDouble}}) {
    for (const auto& outcome :
         run_ranks(c.num_ranks, [&](World& world) { return exchange_in_both_layouts(world, c); })) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << c.num_ranks << " ranks, " << c.num_heads << "/" << c.num_kv_heads << " heads";
    }
  }
}

TEST(HeadSpans, AreGroupsOfHeadsTimesGroupsOfRows) {
  const auto groups = [](int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks) {
    const HeadSpans spans(num_heads, num_kv_heads, num_ranks);
    return std::pair(spans.num_head_groups, spans.num_row_groups);
  };
  EXPECT_EQ(groups(8, 2, 4), std::pair(4L, 1L));
  EXPECT_EQ(groups(8, 8, 16), std::pair(8L, 2L));
  EXPECT_EQ(groups(32, 8, 128), std::pair(32L, 4L));
  EXPECT_EQ(groups(6, 6, 4), std::pair(2L, 2L)) << "4 ranks do not divide 6 heads";
  EXPECT_EQ(groups(12, 6, 4), std::pair(2L, 2L)) << "a group of 3 heads would have one and a half key/value heads";
  EXPECT_EQ(groups(8, 8, 3), std::pair(1L, 3L));
  const HeadSpans spans(2, 1, 4);
  EXPECT_EQ(spans.query, (std::vector<Span>{{0, 1}, {1, 2}, {0, 1}, {1, 2}}));
  EXPECT_EQ(spans.key, (std::vector<Span>{{0, 1}, {0, 1}, {0, 1}, {0, 1}}));
}

TEST(HeadSpans, NeedGroupsOfHeadsOfOneSize) {
  try {
    HeadSpans(6, 4, 2);
    FAIL() << "6 heads for 4 key/value heads";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("6 query heads for 4 key/value heads"));
  }
}

}  // namespace
}  // namespace lighthouse
