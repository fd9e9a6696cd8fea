// The public select, gather and scatter: one index array more, then the operators that do the work.
#include <utility>

#include "lighthouse/ops.h"
#include "ops/checks.h"
#include "ops/internal.h"

namespace lighthouse {

at::Tensor select(const at::Tensor& s_qk, const at::Tensor& s_kq, const SelectionConfig& config,
                  at::OptionalIntArrayRef cu_seqlens) {
  ops::check_scores("select", s_qk, s_kq);
  return std::get<0>(ops::select_entries(s_qk, s_kq, ops::layout_of(config), config.cover_prefix, cu_seqlens));
}

Rows gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
            const SelectionConfig& config, at::OptionalIntArrayRef cu_seqlens, bool check_selection) {
  ops::check_qkv("gather", q, k, v);
  const ops::IndexMaps maps =
      ops::index_maps_of("gather", selection, q.sym_size(1), config, cu_seqlens, check_selection);
  auto [q_rows, k_rows, v_rows] =
      ops::gather_rows(q, k, v, maps.selection, maps.slots, ops::layout_of(config), cu_seqlens);
  return {std::move(q_rows), std::move(k_rows), std::move(v_rows)};
}

at::Tensor scatter(const at::Tensor& rows, const at::Tensor& selection, int64_t seq_len, const SelectionConfig& config,
                   at::OptionalIntArrayRef cu_seqlens, bool check_selection) {
  ops::check_heads("scatter", "rows", rows);
  const ops::IndexMaps maps = ops::index_maps_of("scatter", selection, seq_len, config, cu_seqlens, check_selection);
  return ops::scatter_rows(rows, maps.selection, maps.slots, seq_len, ops::layout_of(config), cu_seqlens);
}

}  // namespace lighthouse
