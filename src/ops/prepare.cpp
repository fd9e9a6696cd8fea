#include "ops/prepare.h"

#include <ATen/ops/empty.h>

#include <utility>
#include <vector>

namespace lighthouse::ops {
namespace {

using Shape = std::vector<c10::SymInt>;

constexpr const char* kSelectionShape = "[batch, num_kv_heads, gathered_len]";

at::Tensor empty(const Shape& shape, const at::Tensor& like) { return at::empty_symint(shape, like.options()); }
at::Tensor empty(const Shape& shape, const at::Tensor& like, at::ScalarType dtype) {
  return at::empty_symint(shape, like.options().dtype(dtype));
}

int64_t fixed(const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); }

void check_group(const char* operation, const c10::SymInt& num_heads, const c10::SymInt& num_kv_heads) {
  TORCH_CHECK_VALUE(num_kv_heads >= 1 && num_heads % num_kv_heads == 0, operation, ": num_heads ", num_heads,
                    " is not a multiple of num_kv_heads ", num_kv_heads,
                    "; every KV head must serve the same number of query heads");
}

void check_num_rows(const char* operation, int64_t num_rows, const SequencePlan& plan) {
  TORCH_CHECK_VALUE(num_rows == plan.gathered_len, operation, ": there are ", num_rows, " rows, but ", plan.seq_len,
                    " tokens gather ", plan.gathered_len,
                    " with this configuration; pass the configuration and cu_seqlens that the rows were gathered with");
}

/// H_kv, which is a size of no tensor but the selection.
c10::SymInt kv_heads_of(const char* operation, const at::Tensor& selection, const c10::SymInt& num_heads) {
  TORCH_CHECK_VALUE(selection.defined() && selection.dim() == 3, operation, ": selection has ",
                    selection.defined() ? selection.dim() : 0, " dimensions; it must be ", kSelectionShape);
  check_group(operation, num_heads, selection.sym_size(1));
  return selection.sym_size(1);
}

void check_index_array(const char* operation, const char* name, const at::Tensor& array, const Shape& shape,
                       const char* meaning, const at::Tensor& like) {
  check_shape(operation, name, array, shape, meaning, like);
  check_dtype(operation, name, array, at::kInt);
  TORCH_CHECK_VALUE(array.is_contiguous(), operation, ": ", name, " has strides ", array.sym_strides(),
                    "; it must be contiguous: pass ", name, ".contiguous()");
}

void check_index_arrays(const char* operation, const at::Tensor& selection, const at::Tensor& slots,
                        const c10::SymInt& batch, const c10::SymInt& num_kv_heads, const SequencePlan& plan,
                        const at::Tensor& like) {
  check_index_array(operation, "selection", selection, {batch, num_kv_heads, plan.gathered_len}, kSelectionShape, like);
  check_index_array(operation, "slots", slots, {batch, num_kv_heads, plan.num_slots},
                    "[batch, num_kv_heads, num_slots]", like);
}

ThreeTensorsCall empty_rows(SequencePlan plan, const Sizes& sizes, const at::Tensor& like) {
  const Shape q_shape{sizes.batch, sizes.num_heads, plan.gathered_len, sizes.head_dim};
  const Shape kv_shape{sizes.batch, sizes.num_kv_heads, plan.gathered_len, sizes.head_dim};
  return {std::move(plan), empty(q_shape, like), empty(kv_shape, like), empty(kv_shape, like)};
}

}  // namespace

at::Tensor prepare_token_norms(const at::Tensor& x, const c10::SymInt& num_kv_heads) {
  check_heads("token_norms", "x", x);
  check_group("token_norms", x.sym_size(2), num_kv_heads);
  return empty({x.sym_size(0), num_kv_heads, x.sym_size(1)}, x, at::kFloat);
}

GlaScoresCall prepare_gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                                 int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "token_scores";
  Sizes sizes = check_qkv(kOperation, q, k, v);
  const Shape gate_shape{sizes.batch, sizes.seq_len, sizes.num_heads};
  check_shape(kOperation, "gate", gate, gate_shape, "[batch, seq_len, num_heads]", q);
  check_dtype(kOperation, "gate", gate, at::kFloat);
  TORCH_CHECK_VALUE(dilation >= 1, kOperation, ": dilation is ", dilation, "; it must be at least 1");
  checked_plan(kOperation, {}, sizes.seq_len, sizes.batch, cu_seqlens);  // for cu_seqlens
  const Shape shape{sizes.batch, sizes.num_kv_heads, sizes.seq_len};
  at::Tensor s_qk = empty(shape, q, at::kFloat);
  at::Tensor s_kq = empty(shape, q, at::kFloat);
  return {std::move(sizes), std::move(s_qk), std::move(s_kq)};
}

SelectCall prepare_select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout,
                                  bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "select";
  check_scores(kOperation, s_qk, s_kq);
  const c10::SymInt batch = s_qk.sym_size(0);
  const c10::SymInt num_kv_heads = s_qk.sym_size(1);
  SelectionConfig config = config_of(layout);
  config.cover_prefix = cover_prefix;
  SequencePlan plan = checked_plan(kOperation, config, fixed_size(s_qk, 2), batch, cu_seqlens);
  at::Tensor selection = empty({batch, num_kv_heads, plan.gathered_len}, s_qk, at::kInt);
  at::Tensor slots = empty({batch, num_kv_heads, plan.num_slots}, s_qk, at::kInt);
  return {std::move(plan), std::move(selection), std::move(slots)};
}

InvertSelectionCall prepare_invert_selection(const at::Tensor& selection, const c10::SymInt& seq_len,
                                             at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "selection";
  TORCH_CHECK_VALUE(selection.defined() && selection.dim() == 3, kOperation, " has ",
                    selection.defined() ? selection.dim() : 0, " dimensions; it must be ", kSelectionShape);
  const c10::SymInt batch = selection.sym_size(0);
  const c10::SymInt num_kv_heads = selection.sym_size(1);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), batch, cu_seqlens);
  check_index_array(kOperation, "selection", selection, {batch, num_kv_heads, plan.gathered_len}, kSelectionShape,
                    selection);
  at::Tensor slots = empty({batch, num_kv_heads, plan.num_slots}, selection, at::kInt);
  return {std::move(plan), std::move(slots)};
}

ThreeTensorsCall prepare_gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& selection, const at::Tensor& slots, at::IntArrayRef layout,
                                     at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "gather";
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), sizes.seq_len, sizes.batch, cu_seqlens);
  check_index_arrays(kOperation, selection, slots, sizes.batch, sizes.num_kv_heads, plan, q);
  return empty_rows(std::move(plan), sizes, q);
}

GatherByNormCall prepare_gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        at::IntArrayRef layout, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "lighthouse_attention";
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  SelectionConfig config = config_of(layout);
  config.cover_prefix = cover_prefix;
  SequencePlan plan = checked_plan(kOperation, config, sizes.seq_len, sizes.batch, cu_seqlens);
  at::Tensor selection = empty({sizes.batch, sizes.num_kv_heads, plan.gathered_len}, q, at::kInt);
  at::Tensor slots = empty({sizes.batch, sizes.num_kv_heads, plan.num_slots}, q, at::kInt);
  return {empty_rows(std::move(plan), sizes, q), std::move(selection), std::move(slots)};
}

ThreeTensorsCall prepare_gather_rows_backward(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                              const at::Tensor& dv_rows, const at::Tensor& selection,
                                              const at::Tensor& slots, const c10::SymInt& seq_len,
                                              at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "gather backward";
  const Sizes sizes = check_rows(kOperation, dq_rows, dk_rows, dv_rows);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), sizes.batch, cu_seqlens);
  check_num_rows(kOperation, sizes.seq_len, plan);
  check_index_arrays(kOperation, selection, slots, sizes.batch, sizes.num_kv_heads, plan, dq_rows);
  const Shape q_shape{sizes.batch, plan.seq_len, sizes.num_heads, sizes.head_dim};
  const Shape kv_shape{sizes.batch, plan.seq_len, sizes.num_kv_heads, sizes.head_dim};
  return {std::move(plan), empty(q_shape, dq_rows), empty(kv_shape, dq_rows), empty(kv_shape, dq_rows)};
}

OneTensorCall prepare_scatter_rows(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                                   const c10::SymInt& seq_len, at::IntArrayRef layout,
                                   at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "scatter";
  check_heads(kOperation, "rows", rows);
  const c10::SymInt batch = rows.sym_size(0);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), batch, cu_seqlens);
  check_num_rows(kOperation, fixed_size(rows, 2), plan);
  check_index_arrays(kOperation, selection, slots, batch, kv_heads_of(kOperation, selection, rows.sym_size(1)), plan,
                     rows);
  at::Tensor out = empty({batch, plan.seq_len, rows.sym_size(1), rows.sym_size(3)}, rows);
  return {std::move(plan), std::move(out)};
}

OneTensorCall prepare_scatter_rows_backward(const at::Tensor& dout, const at::Tensor& selection,
                                            const at::Tensor& slots, at::IntArrayRef layout,
                                            at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kOperation = "scatter backward";
  check_heads(kOperation, "dout", dout);
  const c10::SymInt batch = dout.sym_size(0);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed_size(dout, 1), batch, cu_seqlens);
  check_index_arrays(kOperation, selection, slots, batch, kv_heads_of(kOperation, selection, dout.sym_size(2)), plan,
                     dout);
  at::Tensor drows = empty({batch, dout.sym_size(2), plan.gathered_len, dout.sym_size(3)}, dout);
  return {std::move(plan), std::move(drows)};
}

}  // namespace lighthouse::ops
