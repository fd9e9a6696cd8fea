// Gather, scatter and their adjoints. On small integers their sums and power-of-two means are exact in fp32, so that
// the one rounding to the dtype is all that may happen: results equal the reference exactly, in every memory order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "lighthouse/gather.h"
#include "lighthouse/scatter.h"
#include "lighthouse/select.h"
#include "stage_cases.h"
#include "support/strided_array.h"
#include "support/threads.h"

namespace lighthouse {
namespace {

using reference::Tensor;
using test_support::kOrders;
using test_support::Order;
using test_support::StridedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};

/// A case with its index maps.
struct Maps {
  StageCase c;
  SequencePlan plan;
  reference::Selection selection;
  std::vector<int32_t> slots;
};

Maps make_maps(const StageCase& c, CaseGenerator& random) {
  Maps maps{c, c.plan(), {}, {}};
  const int64_t heads = c.batch * c.num_kv_heads;
  maps.selection = {c.batch, c.num_kv_heads, maps.plan.gathered_len, {}};
  maps.selection.entries.resize(heads * maps.plan.gathered_len);
  maps.slots.resize(heads * maps.plan.num_slots);
  const std::vector<float> s_qk = random.scores(heads * c.seq_len);
  const std::vector<float> s_kq = random.scores(heads * c.seq_len);
  select_entries(
      {s_qk.data(), s_kq.data(), &maps.plan, c.batch, c.num_kv_heads, maps.selection.entries.data(), maps.slots.data()},
      serial_for);
  return maps;
}

/// q, k and v, or their rows, or gradients of either.
struct Triple {
  Tensor q, k, v;
};
template <typename Make>
Triple make_triple(const StageCase& c, int64_t length, const Make& make) {
  return {make(c.batch, length, c.num_heads, c.head_dim), make(c.batch, length, c.num_kv_heads, c.head_dim),
          make(c.batch, length, c.num_kv_heads, c.head_dim)};
}

struct TripleArrays {
  StridedArray q, k, v;
};
TripleArrays arrays_of(DType dtype, Order order, const Triple& t) {
  return {{dtype, order, t.q}, {dtype, order, t.k}, {dtype, order, t.v}};
}
TripleArrays empty_arrays(DType dtype, Order order, const StageCase& c, int64_t length) {
  return {{dtype, order, c.batch, length, c.num_heads, c.head_dim},
          {dtype, order, c.batch, length, c.num_kv_heads, c.head_dim},
          {dtype, order, c.batch, length, c.num_kv_heads, c.head_dim}};
}

TripleArrays run_gather(const Maps& maps, const Triple& x, DType dtype, Order in, Order out,
                        const ParallelFor& parallel_for) {
  const StageCase& c = maps.c;
  const TripleArrays from = arrays_of(dtype, in, x);
  TripleArrays rows = empty_arrays(dtype, out, c, maps.plan.gathered_len);
  gather_rows(
      {from.q.const_view(), from.k.const_view(), from.v.const_view(), rows.q.view(), rows.k.view(), rows.v.view(),
       maps.selection.entries.data(), &maps.plan, dtype, c.batch, c.num_heads, c.num_kv_heads, c.head_dim},
      parallel_for);
  return rows;
}
TripleArrays run_gather_backward(const Maps& maps, const Triple& dx_rows, DType dtype, Order in, Order out,
                                 const ParallelFor& parallel_for) {
  const StageCase& c = maps.c;
  const TripleArrays from = arrays_of(dtype, in, dx_rows);
  TripleArrays dx = empty_arrays(dtype, out, c, c.seq_len);
  gather_rows_backward(
      {from.q.const_view(), from.k.const_view(), from.v.const_view(), dx.q.view(), dx.k.view(), dx.v.view(),
       maps.slots.data(), &maps.plan, dtype, c.batch, c.num_heads, c.num_kv_heads, c.head_dim},
      parallel_for);
  return dx;
}
StridedArray run_scatter(const Maps& maps, const Tensor& rows, DType dtype, Order in, Order out,
                         const ParallelFor& parallel_for) {
  const StageCase& c = maps.c;
  const StridedArray from(dtype, in, rows);
  StridedArray o(dtype, out, c.batch, c.seq_len, c.num_heads, c.head_dim);
  scatter_rows({from.const_view(), o.view(), maps.slots.data(), &maps.plan, dtype, c.batch, c.num_heads, c.num_kv_heads,
                c.head_dim},
               parallel_for);
  return o;
}
StridedArray run_scatter_backward(const Maps& maps, const Tensor& dout, DType dtype, Order in, Order out,
                                  const ParallelFor& parallel_for) {
  const StageCase& c = maps.c;
  const StridedArray from(dtype, in, dout);
  StridedArray drows(dtype, out, c.batch, maps.plan.gathered_len, c.num_heads, c.head_dim);
  scatter_rows_backward({from.const_view(), drows.view(), maps.selection.entries.data(), &maps.plan, dtype, c.batch,
                         c.num_heads, c.num_kv_heads, c.head_dim},
                        parallel_for);
  return drows;
}

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
