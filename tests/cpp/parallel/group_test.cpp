// Collectives of forked ranks, over Gloo; over NCCL on GPUs.
#include "parallel/group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

using parallel_test::on_gpus;
using parallel_test::Outcome;
using parallel_test::run_ranks;

std::vector<int64_t> all_ranks(const World& world) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

at::TensorOptions on_device(at::ScalarType dtype) { return at::TensorOptions().device(test_device()).dtype(dtype); }

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

void expect_all_done(const std::vector<Outcome>& outcomes) {
  for (size_t rank = 0; rank < outcomes.size(); ++rank) {
    EXPECT_EQ(outcomes[rank].exit_code, 0) << "rank " << rank << ": " << outcomes[rank].text;
  }
}

/// Row i of what rank `from` sends to rank `to` is {from, to, i}; it sends (from + 2 to) % 3 rows.
int64_t rows_between(int64_t from, int64_t to) { return (from + 2 * to) % 3; }

void exchange_uneven_rows(Group& group, at::ScalarType dtype) {
  const int64_t size = group.size(), rank = group.rank();
  std::vector<int64_t> in_counts, out_counts;
  std::vector<int64_t> sent, expected;
  for (int64_t other = 0; other < size; ++other) {
    in_counts.push_back(rows_between(rank, other));
    out_counts.push_back(rows_between(other, rank));
    for (int64_t i = 0; i < in_counts.back(); ++i) sent.insert(sent.end(), {rank, other, i});
    for (int64_t i = 0; i < out_counts.back(); ++i) expected.insert(expected.end(), {other, rank, i});
  }
  const auto rows = [&](std::vector<int64_t>& values) {
    return at::from_blob(values.data(), {static_cast<int64_t>(values.size()) / 3, 3}, at::kLong)
        .to(test_device(), dtype);
  };
  const at::Tensor in = rows(sent), wanted = rows(expected);
  const at::Tensor out = at::full(wanted.sizes(), -1, wanted.options());
  group.all_to_all({{out, in, out_counts, in_counts}}, "all-to-all of rows").wait();
  require(out.equal(wanted), "all_to_all: wrong rows");
}

TEST(Groups, ExchangeUnevenRowsInOrder) {
  for (const int64_t size : {1, 2, 3, 5}) {
    expect_all_done(run_ranks(size, [](World& world) -> std::string {
      const auto group = world.make_group("all", all_ranks(world));
      for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kInt}) {
        exchange_uneven_rows(*group, dtype);
      }
      return "";
    }));
  }
}

TEST(Groups, GatherAndSumInTheOrderOfRanks) {
  const auto term = [](int64_t rank) { return std::ldexp(1.0, static_cast<int>(30 * (rank % 3))) + 0.1; };
  expect_all_done(run_ranks(4, [&](World& world) -> std::string {
    const auto group = world.make_group("all", all_ranks(world));
    const at::Tensor all = at::empty({4, 2}, on_device(at::kFloat));
    group->all_gather(all, at::full({2}, static_cast<double>(world.rank()), all.options()), "all-gather").wait();
    require(all.equal(at::arange(4, all.options()).unsqueeze(1).expand({4, 2})), "all_gather");
    double wanted = term(0);  // in another order of addition it would round otherwise
    for (int64_t rank = 1; rank < 4; ++rank) wanted += term(rank);
    const at::Tensor sum = group->sum(at::full({3}, term(world.rank()), on_device(at::kDouble)), "sum");
    require(sum.eq(wanted).all().item<bool>(), "sum");
    return "";
  }));
}

TEST(Groups, OnGpusLetGoOfTensorsOnceTheyWereWaitedFor) {
  if (!on_gpus()) GTEST_SKIP() << "Gloo's threads let go a moment later";
  expect_all_done(run_ranks(2, [](World& world) -> std::string {
    const auto group = world.make_group("all", all_ranks(world));
    std::vector<at::Tensor> tensors;
    for (int i = 0; i < 4; ++i) tensors.push_back(at::full({2, 3}, i, on_device(at::kFloat)));
    group->all_to_all({{tensors[0], tensors[1], {1, 1}, {1, 1}}}, "one").wait();
    group->all_to_all({{tensors[0], tensors[1], {1, 1}, {1, 1}}, {tensors[2], tensors[3], {1, 1}, {1, 1}}}, "two")
        .wait();
    for (const at::Tensor& x : tensors) require(x.use_count() == 1, "somebody keeps a tensor");
    return "";
  }));
}

TEST(Groups, OfAMeshDoNotMix) {
  expect_all_done(run_ranks(4, [](World& world) -> std::string {
    const int64_t row = world.rank() / 2, column = world.rank() % 2;
    const auto across = world.make_group("context " + std::to_string(row), {2 * row, 2 * row + 1});
    const auto down = world.make_group("data " + std::to_string(column), {column, column + 2});
    const at::Tensor mine = at::full({1}, static_cast<double>(world.rank()), on_device(at::kFloat));
    require(across->sum(mine, "across").item<double>() == static_cast<double>(4 * row + 1), "across");
    require(down->sum(mine, "down").item<double>() == static_cast<double>(2 * column + 2), "down");
    require(down->rank() == row && across->rank() == column, "ranks");
    return "";
  }));
}

TEST(Groups, CheckWhatTheyAreGiven) {
  Group alone;
  const at::Tensor x = at::empty({4, 2});
  EXPECT_THROW(alone.all_to_all({{x, x, {4, 0}, {4}}}, "rows").wait(), InvalidArgument);
  EXPECT_THROW(alone.all_to_all({{x, x, {4}, {3}}}, "rows").wait(), InvalidArgument);
  EXPECT_THROW(alone.all_to_all({{x, x.t(), {4}, {2}}}, "rows").wait(), InvalidArgument);
  EXPECT_THROW(alone.all_to_all({{x, x.to(at::kDouble), {4}, {4}}}, "rows").wait(), InvalidArgument);
  EXPECT_THROW(alone.all_gather(x, at::empty({3}), "rows").wait(), InvalidArgument);
}

}  // namespace
}  // namespace lighthouse
