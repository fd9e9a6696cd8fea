// Gather, scatter and their adjoints. On small integers their sums and power-of-two means are exact in fp32, so that
// the one rounding to the dtype is all that may happen: results equal the reference exactly, in every memory order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "row_maps.h"
#include "support/threads.h"

namespace lighthouse {
namespace {

/// fp32 holds integers below 8 in 16ths ... F-ths exactly up to F = 2^20; fp64 holds all.
bool exact_in_fp32(const StageCase& c) { return c.coarse_span() <= (1 << 20); }

void expect_equals_reference(const Maps& maps, CaseGenerator& random, DType dtype) {
  const StageCase& c = maps.c;
  const reference::Sequence sequence = c.sequence();
  const ParallelFor parallel_for = test_support::threaded_for(1 + random.below(4));
  const auto order = [&] { return random.one_of(kOrders); };
  const auto integers = [&](auto... sizes) { return random.integers(sizes...); };

  const Triple x = make_triple(c, c.seq_len, integers);
  const TripleArrays rows = run_gather(maps, x, dtype, order(), order(), parallel_for);
  EXPECT_EQ(rows.q.difference(reference::gather(x.q, maps.selection, sequence)), "") << "q_rows";
  EXPECT_EQ(rows.k.difference(reference::gather(x.k, maps.selection, sequence)), "") << "k_rows";
  EXPECT_EQ(rows.v.difference(reference::gather(x.v, maps.selection, sequence)), "") << "v_rows";

  const Triple dx_rows = make_triple(c, maps.plan.gathered_len, integers);
  const TripleArrays dx = run_gather_backward(maps, dx_rows, dtype, order(), order(), parallel_for);
  EXPECT_EQ(dx.q.difference(reference::gather_backward(dx_rows.q, maps.selection, sequence)), "") << "dq";
  EXPECT_EQ(dx.k.difference(reference::gather_backward(dx_rows.k, maps.selection, sequence)), "") << "dk";
  EXPECT_EQ(dx.v.difference(reference::gather_backward(dx_rows.v, maps.selection, sequence)), "") << "dv";

  EXPECT_EQ(run_scatter(maps, dx_rows.q, dtype, order(), order(), parallel_for)
                .difference(reference::scatter(dx_rows.q, maps.selection, sequence)),
            "")
      << "out";
  EXPECT_EQ(run_scatter_backward(maps, x.q, dtype, order(), order(), parallel_for)
                .difference(reference::scatter_backward(x.q, maps.selection, sequence)),
            "")
      << "drows";
}

TEST(RowMaps, EqualReferenceOnIntegersAtRandomConfigurations) {
  CaseGenerator random(5);
  for (int i = 0; i < 200; ++i) {
    StageCase c = random.stage_case(i % 40 == 0 ? 1000 : 150);
    c.config.topk = std::min<int64_t>(c.config.topk, 60);
    const Maps maps = make_maps(c, random);
    const DType dtype = exact_in_fp32(c) ? random.one_of(kDTypes) : DType::kFloat64;
    SCOPED_TRACE("case " + std::to_string(i) + ", dtype " + std::to_string(static_cast<int>(dtype)) + ": " +
                 testing::PrintToString(c));
    expect_equals_reference(maps, random, dtype);
    if (testing::Test::HasFailure()) return;
  }
}

double inner(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

/// <G x, y> = <x, G' y>: both sides are integers in F-ths below 2^53, so fp64 has both exactly.
TEST(RowMaps, BackwardIsTheAdjointOfForward) {
  CaseGenerator random(6);
  for (int i = 0; i < 100; ++i) {
    const StageCase c = random.stage_case(120);
    if (!exact_in_fp32(c)) continue;
    const Maps maps = make_maps(c, random);
    SCOPED_TRACE(testing::PrintToString(c));
    const auto integers = [&](auto... sizes) { return random.integers(sizes...); };
    const Triple x = make_triple(c, c.seq_len, integers);
    const Triple y = make_triple(c, maps.plan.gathered_len, integers);
    const auto plain = Order::kTokensFirst;
    const TripleArrays rows = run_gather(maps, x, DType::kFloat64, plain, plain, serial_for);
    const TripleArrays dx = run_gather_backward(maps, y, DType::kFloat64, plain, plain, serial_for);
    ASSERT_EQ(inner(rows.q.tensor(), y.q), inner(x.q, dx.q.tensor()));
    ASSERT_EQ(inner(rows.k.tensor(), y.k), inner(x.k, dx.k.tensor()));
    ASSERT_EQ(inner(rows.v.tensor(), y.v), inner(x.v, dx.v.tensor()));
    const Tensor o = run_scatter(maps, y.q, DType::kFloat64, plain, plain, serial_for).tensor();
    const Tensor drows = run_scatter_backward(maps, x.q, DType::kFloat64, plain, plain, serial_for).tensor();
    ASSERT_EQ(inner(o, x.q), inner(y.q, drows));
  }
}

TEST(RowMaps, BitsDoNotDependOnThreadsOrMemoryOrder) {
  CaseGenerator random(7);
  for (const DType dtype : kDTypes) {
    StageCase c{};
    c.config.topk = 20;
    c.config.tile_topk = 7;
    c.batch = 2;
    c.seq_len = 1003;
    c.num_heads = 4;
    c.num_kv_heads = 2;
    c.head_dim = 72;
    const Maps maps = make_maps(c, random);
    const auto normals = [&](auto... sizes) { return random.normals(sizes...); };
    const Triple x = make_triple(c, c.seq_len, normals);
    const Triple y = make_triple(c, maps.plan.gathered_len, normals);
    const auto bytes = [&](Order in, const ParallelFor& parallel_for) {
      const auto plain = Order::kTokensFirst;
      return std::vector{run_gather(maps, x, dtype, in, plain, parallel_for).q.bytes(),
                         run_gather_backward(maps, y, dtype, in, plain, parallel_for).v.bytes(),
                         run_scatter(maps, y.q, dtype, in, plain, parallel_for).bytes(),
                         run_scatter_backward(maps, x.q, dtype, in, plain, parallel_for).bytes()};
    };
    const auto expected = bytes(Order::kTokensFirst, serial_for);
    for (int64_t threads = 1; threads <= 3; ++threads) {
      for (const Order order : kOrders) {
        ASSERT_EQ(bytes(order, test_support::threaded_for(threads)), expected) << threads << " threads";
      }
    }
  }
}

TEST(RowMaps, OneLevelIsTheIdentity) {
  CaseGenerator random(8);
  StageCase c{};
  c.config.num_levels = 1;
  c.batch = 1;
  c.seq_len = 77;
  c.num_heads = c.num_kv_heads = 2;
  c.head_dim = 20;
  const Maps maps = make_maps(c, random);
  const Triple x = make_triple(c, c.seq_len, [&](auto... sizes) { return random.normals(sizes...); });
  const auto plain = Order::kTokensFirst;
  for (const DType dtype : kDTypes) {
    EXPECT_EQ(run_gather(maps, x, dtype, plain, plain, serial_for).k.difference(x.k), "");
    EXPECT_EQ(run_gather_backward(maps, x, dtype, plain, plain, serial_for).k.difference(x.k), "");
    EXPECT_EQ(run_scatter(maps, x.q, dtype, plain, plain, serial_for).difference(x.q), "");
    EXPECT_EQ(run_scatter_backward(maps, x.q, dtype, plain, plain, serial_for).difference(x.q), "");
  }
}

TEST(RowMaps, DeepestPyramidOverOneEntry) {
  CaseGenerator random(9);
  StageCase c{};
  c.config.num_levels = 8;
  c.config.pooling_factor = 16;
  c.batch = c.num_heads = c.num_kv_heads = 1;
  c.seq_len = 1 + 7 * 16 + 1;  // one token more than it gathers
  c.head_dim = 5;
  const Maps maps = make_maps(c, random);
  ASSERT_EQ(maps.plan.gathered_len, c.seq_len - 1);
  expect_equals_reference(maps, random, DType::kFloat64);
}

TEST(RowMaps, TokensOfShortDocumentsAreCopied) {
  CaseGenerator random(11);
  StageCase c{};
  c.config.num_levels = 3;
  c.config.topk = 8;
  c.config.tile_topk = 4;
  c.batch = 1;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 20;
  c.cu_seqlens = {0, 1, 1, 21, 600, 617, 617};
  c.seq_len = 617;
  const Maps maps = make_maps(c, random);
  ASSERT_LT(maps.plan.documents[3].num_rows, 579);
  const Triple x = make_triple(c, c.seq_len, [&](auto... sizes) { return random.normals(sizes...); });
  const auto plain = Order::kTokensFirst;
  for (const DType dtype : kDTypes) {
    expect_equals_reference(maps, random, dtype);
    if (dtype != DType::kFloat64) continue;
    const Tensor rows = run_gather(maps, x, dtype, plain, plain, serial_for).k.tensor();
    for (const size_t number : {0, 2, 4}) {
      const Document& full = maps.plan.documents[number];
      ASSERT_EQ(full.num_rows, full.pyramid.seq_len);
      for (int64_t i = 0; i < full.num_rows; ++i) {
        EXPECT_EQ(*rows.at(0, full.row_begin + i, 1), *x.k.at(0, full.token_begin + i, 1));
      }
    }
  }
}

TEST(RowMaps, MoreRowsThanSixteenBitsCount) {
  CaseGenerator random(10);
  StageCase c{};
  c.config.topk = 9000;
  c.batch = c.num_heads = c.num_kv_heads = 1;
  c.seq_len = 200001;
  c.head_dim = 1;
  const Maps maps = make_maps(c, random);
  ASSERT_EQ(maps.plan.gathered_len, 12501 + 2 * 4 * 9000);
  for (const DType dtype : kDTypes) expect_equals_reference(maps, random, dtype);
}

}  // namespace
}  // namespace lighthouse
