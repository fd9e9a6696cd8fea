#include "ops/internal.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/tensor.h>

#include <utility>

namespace lighthouse::ops {
namespace {

/// The handle of lighthouse::<name>, with the signature of the function that calls it.
template <typename Function>
c10::TypedOperatorHandle<Function> find(Function* /*caller*/, const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace

std::array<int64_t, 4> layout_of(const SelectionConfig& config) {
  return {config.num_levels, config.pooling_factor, config.topk, config.tile_topk};
}

at::Tensor token_norms(const at::Tensor& x, c10::SymInt num_kv_heads) {
  static const auto op = find(&token_norms, "lighthouse::_token_norms");
  return op.call(x, std::move(num_kv_heads));
}

TwoTensors gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                      int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&gla_scores, "lighthouse::_gla_scores");
  return op.call(q, k, v, gate, dilation, cu_seqlens);
}

TwoTensors select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout, bool cover_prefix,
                          at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&select_entries, "lighthouse::_select_entries");
  return op.call(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
}

at::Tensor invert_selection(const at::Tensor& selection, c10::SymInt seq_len, at::IntArrayRef layout,
                            at::OptionalIntArrayRef cu_seqlens, bool check) {
  static const auto op = find(&invert_selection, "lighthouse::_invert_selection");
  return op.call(selection, std::move(seq_len), layout, cu_seqlens, check);
}

IndexMaps index_maps_of(const char* operation, const at::Tensor& selection, c10::SymInt seq_len,
                        const SelectionConfig& config, at::OptionalIntArrayRef cu_seqlens, bool check) {
  TORCH_CHECK_VALUE(selection.defined(), operation,
                    ": selection is an undefined tensor; it must be [batch, num_kv_heads, gathered_len]");
  at::Tensor contiguous = selection.contiguous();
  at::Tensor slots = invert_selection(contiguous, std::move(seq_len), layout_of(config), cu_seqlens, check);
  return {std::move(contiguous), std::move(slots)};
}

ThreeTensors gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
                         const at::Tensor& slots, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&gather_rows, "lighthouse::_gather_rows");
  return op.call(q, k, v, selection, slots, layout, cu_seqlens);
}

ThreeTensors gather_rows_backward(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                  const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                  at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&gather_rows_backward, "lighthouse::_gather_rows_backward");
  return op.call(dq_rows, dk_rows, dv_rows, selection, slots, std::move(seq_len), layout, cu_seqlens);
}

at::Tensor scatter_rows(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                        c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&scatter_rows, "lighthouse::_scatter_rows");
  return op.call(rows, selection, slots, std::move(seq_len), layout, cu_seqlens);
}

at::Tensor scatter_rows_backward(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                 at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&scatter_rows_backward, "lighthouse::_scatter_rows_backward");
  return op.call(dout, selection, slots, layout, cu_seqlens);
}

SelectedRows gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::IntArrayRef layout,
                            bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  static const auto op = find(&gather_by_norm, "lighthouse::_gather_by_norm");
  return op.call(q, k, v, layout, cover_prefix, cu_seqlens);
}

SelectedRows gather_by_norm_composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     at::IntArrayRef layout, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  const c10::SymInt num_kv_heads = k.sym_size(2);
  const at::Tensor s_qk = token_norms(q, num_kv_heads);
  const at::Tensor s_kq = token_norms(k, num_kv_heads);
  auto [selection, slots] = select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  auto [q_rows, k_rows, v_rows] = gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  return {std::move(q_rows), std::move(k_rows), std::move(v_rows), std::move(selection), std::move(slots)};
}

at::Tensor offsets_like_composed(const at::Tensor& like, at::IntArrayRef offsets) {
  return at::tensor(offsets, like.options().dtype(at::kInt));
}

at::Tensor offsets_like(const at::Tensor& like, at::IntArrayRef offsets) {
  static const auto op = find(&offsets_like, "lighthouse::_offsets_like");
  return op.call(like, offsets);
}

}  // namespace lighthouse::ops
