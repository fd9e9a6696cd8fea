// The maps between tokens and rows, run on a case's arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/gather.h"
#include "lighthouse/scatter.h"
#include "lighthouse/select.h"
#include "stage_cases.h"
#include "support/strided_array.h"

namespace lighthouse {

using reference::Tensor;
using test_support::kOrders;
using test_support::Order;
using test_support::StridedArray;

inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};

/// A case with its index maps.
struct Maps {
  StageCase c;
  SequencePlan plan;
  reference::Selection selection;
  std::vector<int32_t> slots;
};

/// The maps of a plan of the case's tokens, or of a part of them, from scores [B, H_kv, tokens].
inline Maps make_maps(const StageCase& c, const SequencePlan& plan, const std::vector<float>& s_qk,
                      const std::vector<float>& s_kq) {
  Maps maps{c, plan, {}, {}};
  const int64_t heads = c.batch * c.num_kv_heads;
  maps.selection = {c.batch, c.num_kv_heads, maps.plan.gathered_len, {}};
  maps.selection.entries.resize(heads * maps.plan.gathered_len);
  maps.slots.resize(heads * maps.plan.num_slots);
  select_entries(
      {s_qk.data(), s_kq.data(), &maps.plan, c.batch, c.num_kv_heads, maps.selection.entries.data(), maps.slots.data()},
      serial_for);
  return maps;
}
inline Maps make_maps(const StageCase& c, CaseGenerator& random) {
  const int64_t size = c.batch * c.num_kv_heads * c.seq_len;
  const std::vector<float> s_qk = random.scores(size);
  return make_maps(c, c.plan(), s_qk, random.scores(size));
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
inline TripleArrays arrays_of(DType dtype, Order order, const Triple& t) {
  return {{dtype, order, t.q}, {dtype, order, t.k}, {dtype, order, t.v}};
}
inline TripleArrays empty_arrays(DType dtype, Order order, const StageCase& c, int64_t length) {
  return {{dtype, order, c.batch, length, c.num_heads, c.head_dim},
          {dtype, order, c.batch, length, c.num_kv_heads, c.head_dim},
          {dtype, order, c.batch, length, c.num_kv_heads, c.head_dim}};
}

inline TripleArrays run_gather(const Maps& maps, const Triple& x, DType dtype, Order in, Order out,
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
inline TripleArrays run_gather_backward(const Maps& maps, const Triple& dx_rows, DType dtype, Order in, Order out,
                                        const ParallelFor& parallel_for) {
  const StageCase& c = maps.c;
  const TripleArrays from = arrays_of(dtype, in, dx_rows);
  TripleArrays dx = empty_arrays(dtype, out, c, maps.plan.seq_len);
  gather_rows_backward(
      {from.q.const_view(), from.k.const_view(), from.v.const_view(), dx.q.view(), dx.k.view(), dx.v.view(),
       maps.slots.data(), &maps.plan, dtype, c.batch, c.num_heads, c.num_kv_heads, c.head_dim},
      parallel_for);
  return dx;
}
inline StridedArray run_scatter(const Maps& maps, const Tensor& rows, DType dtype, Order in, Order out,
                                const ParallelFor& parallel_for, const ConstView& carried = {}) {
  const StageCase& c = maps.c;
  const StridedArray from(dtype, in, rows);
  StridedArray o(dtype, out, c.batch, maps.plan.seq_len, c.num_heads, c.head_dim);
  scatter_rows({from.const_view(), o.view(), maps.slots.data(), &maps.plan, dtype, c.batch, c.num_heads, c.num_kv_heads,
                c.head_dim, carried},
               parallel_for);
  return o;
}
inline StridedArray run_scatter_backward(const Maps& maps, const Tensor& dout, DType dtype, Order in, Order out,
                                         const ParallelFor& parallel_for, const ConstView& dout_after = {}) {
  const StageCase& c = maps.c;
  const StridedArray from(dtype, in, dout);
  StridedArray drows(dtype, out, c.batch, maps.plan.gathered_len, c.num_heads, c.head_dim);
  scatter_rows_backward({from.const_view(), drows.view(), maps.selection.entries.data(), &maps.plan, dtype, c.batch,
                         c.num_heads, c.num_kv_heads, c.head_dim, dout_after},
                        parallel_for);
  return drows;
}

}  // namespace lighthouse
