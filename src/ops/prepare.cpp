#include "ops/prepare.h"

#include <utility>
#include <vector>

namespace lighthouse::ops {
namespace {

constexpr const char* kSelectionShape = "[batch, num_kv_heads, gathered_len]";

void check_group(const char* operation, const Size& num_heads, const Size& num_kv_heads) {
  LIGHTHOUSE_CHECK_VALUE(num_kv_heads >= 1 && num_heads % num_kv_heads == 0, operation, ": num_heads ", num_heads,
                         " is not a multiple of num_kv_heads ", num_kv_heads,
                         "; every KV head must serve the same number of query heads");
}

void check_num_rows(const char* operation, int64_t num_rows, const SequencePlan& plan) {
  LIGHTHOUSE_CHECK_VALUE(
      num_rows == plan.gathered_len, operation, ": there are ", num_rows, " rows, but ", plan.seq_len,
      " tokens gather ", plan.gathered_len,
      " with this configuration; pass the configuration and cu_seqlens that the rows were gathered with");
}

/// H_kv, which is a size of no tensor but the selection.
Size kv_heads_of(const char* operation, const Tensor& selection, const Size& num_heads) {
  LIGHTHOUSE_CHECK_VALUE(selection.defined() && selection.dim() == 3, operation, ": selection has ",
                         selection.defined() ? selection.dim() : 0, " dimensions; it must be ", kSelectionShape);
  check_group(operation, num_heads, size(selection, 1));
  return size(selection, 1);
}

void check_index_array(const char* operation, const char* name, const Tensor& array, const Shape& shape,
                       const char* meaning, const Tensor& like) {
  check_shape(operation, name, array, shape, meaning, like);
  check_dtype(operation, name, array, ScalarType::Int);
  LIGHTHOUSE_CHECK_VALUE(array.is_contiguous(), operation, ": ", name, " has strides ", strides(array),
                         "; it must be contiguous: pass ", name, ".contiguous()");
}

void check_index_arrays(const char* operation, const Tensor& selection, const Tensor& slots, const Size& batch,
                        const Size& num_kv_heads, const SequencePlan& plan, const Tensor& like) {
  check_index_array(operation, "selection", selection, {batch, num_kv_heads, plan.gathered_len}, kSelectionShape, like);
  check_index_array(operation, "slots", slots, {batch, num_kv_heads, plan.num_slots},
                    "[batch, num_kv_heads, num_slots]", like);
}

ThreeTensorsCall empty_rows(SequencePlan plan, const Sizes& sizes, const Tensor& like) {
  const Shape q_shape{sizes.batch, sizes.num_heads, plan.gathered_len, sizes.head_dim};
  const Shape kv_shape{sizes.batch, sizes.num_kv_heads, plan.gathered_len, sizes.head_dim};
  return {std::move(plan), empty(q_shape, like), empty(kv_shape, like), empty(kv_shape, like)};
}

}  // namespace

SelectionConfig config_of(Integers layout) {
  LIGHTHOUSE_CHECK_VALUE(layout.size() == 4, "lighthouse: layout has ", layout.size(),
                         " elements; it must be [num_levels, pooling_factor, topk, tile_topk]");
  SelectionConfig config;
  config.num_levels = layout[0];
  config.pooling_factor = layout[1];
  config.topk = layout[2];
  config.tile_topk = layout[3];
  return config;
}

Tensor prepare_token_norms(const Tensor& x, const Size& num_kv_heads) {
  check_heads("token_norms", "x", x);
  check_group("token_norms", size(x, 2), num_kv_heads);
  return empty({size(x, 0), num_kv_heads, size(x, 1)}, x, ScalarType::Float);
}

GlaScoresCall prepare_gla_scores(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate,
                                 int64_t dilation, OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "token_scores";
  Sizes sizes = check_qkv(kOperation, q, k, v);
  const Shape gate_shape{sizes.batch, sizes.seq_len, sizes.num_heads};
  check_shape(kOperation, "gate", gate, gate_shape, "[batch, seq_len, num_heads]", q);
  check_dtype(kOperation, "gate", gate, ScalarType::Float);
  LIGHTHOUSE_CHECK_VALUE(dilation >= 1, kOperation, ": dilation is ", dilation, "; it must be at least 1");
  checked_plan(kOperation, {}, sizes.seq_len, sizes.batch, cu_seqlens);  // for cu_seqlens
  const Shape shape{sizes.batch, sizes.num_kv_heads, sizes.seq_len};
  Tensor s_qk = empty(shape, q, ScalarType::Float);
  Tensor s_kq = empty(shape, q, ScalarType::Float);
  return {std::move(sizes), std::move(s_qk), std::move(s_kq)};
}

SelectCall prepare_select_entries(const Tensor& s_qk, const Tensor& s_kq, Integers layout, bool cover_prefix,
                                  OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "select";
  check_scores(kOperation, s_qk, s_kq);
  const Size batch = size(s_qk, 0);
  const Size num_kv_heads = size(s_qk, 1);
  SelectionConfig config = config_of(layout);
  config.cover_prefix = cover_prefix;
  SequencePlan plan = checked_plan(kOperation, config, fixed_size(s_qk, 2), batch, cu_seqlens);
  Tensor selection = empty({batch, num_kv_heads, plan.gathered_len}, s_qk, ScalarType::Int);
  Tensor slots = empty({batch, num_kv_heads, plan.num_slots}, s_qk, ScalarType::Int);
  return {std::move(plan), std::move(selection), std::move(slots)};
}

InvertSelectionCall prepare_invert_selection(const Tensor& selection, const Size& seq_len, Integers layout,
                                             OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "selection";
  LIGHTHOUSE_CHECK_VALUE(selection.defined() && selection.dim() == 3, kOperation, " has ",
                         selection.defined() ? selection.dim() : 0, " dimensions; it must be ", kSelectionShape);
  const Size batch = size(selection, 0);
  const Size num_kv_heads = size(selection, 1);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), batch, cu_seqlens);
  check_index_array(kOperation, "selection", selection, {batch, num_kv_heads, plan.gathered_len}, kSelectionShape,
                    selection);
  Tensor slots = empty({batch, num_kv_heads, plan.num_slots}, selection, ScalarType::Int);
  return {std::move(plan), std::move(slots)};
}

ThreeTensorsCall prepare_gather_rows(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                                     const Tensor& slots, Integers layout, OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "gather";
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), sizes.seq_len, sizes.batch, cu_seqlens);
  check_index_arrays(kOperation, selection, slots, sizes.batch, sizes.num_kv_heads, plan, q);
  return empty_rows(std::move(plan), sizes, q);
}

GatherByNormCall prepare_gather_by_norm(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout,
                                        bool cover_prefix, OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "lighthouse_attention";
  const Sizes sizes = check_qkv(kOperation, q, k, v);
  SelectionConfig config = config_of(layout);
  config.cover_prefix = cover_prefix;
  SequencePlan plan = checked_plan(kOperation, config, sizes.seq_len, sizes.batch, cu_seqlens);
  Tensor selection = empty({sizes.batch, sizes.num_kv_heads, plan.gathered_len}, q, ScalarType::Int);
  Tensor slots = empty({sizes.batch, sizes.num_kv_heads, plan.num_slots}, q, ScalarType::Int);
  return {empty_rows(std::move(plan), sizes, q), std::move(selection), std::move(slots)};
}

SequencePlan gather_backward_plan(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                  const Tensor& selection, const Tensor& slots, const Size& seq_len, Integers layout,
                                  OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "gather backward";
  const Sizes sizes = check_rows(kOperation, dq_rows, dk_rows, dv_rows);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), sizes.batch, cu_seqlens);
  check_num_rows(kOperation, sizes.seq_len, plan);
  check_index_arrays(kOperation, selection, slots, sizes.batch, sizes.num_kv_heads, plan, dq_rows);
  return plan;
}

ThreeTensorsCall prepare_gather_rows_backward(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                              const Tensor& selection, const Tensor& slots, const Size& seq_len,
                                              Integers layout, OptionalIntegers cu_seqlens) {
  SequencePlan plan = gather_backward_plan(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  const Shape q_shape{size(dq_rows, 0), plan.seq_len, size(dq_rows, 1), size(dq_rows, 3)};
  const Shape kv_shape{size(dq_rows, 0), plan.seq_len, size(dk_rows, 1), size(dq_rows, 3)};
  return {std::move(plan), empty(q_shape, dq_rows), empty(kv_shape, dq_rows), empty(kv_shape, dq_rows)};
}

OneTensorCall prepare_scatter_rows(const Tensor& rows, const Tensor& selection, const Tensor& slots,
                                   const Size& seq_len, Integers layout, OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "scatter";
  check_heads(kOperation, "rows", rows);
  const Size batch = size(rows, 0);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed(seq_len), batch, cu_seqlens);
  check_num_rows(kOperation, fixed_size(rows, 2), plan);
  check_index_arrays(kOperation, selection, slots, batch, kv_heads_of(kOperation, selection, size(rows, 1)), plan,
                     rows);
  Tensor out = empty({batch, plan.seq_len, size(rows, 1), size(rows, 3)}, rows);
  return {std::move(plan), std::move(out)};
}

OneTensorCall prepare_scatter_rows_backward(const Tensor& dout, const Tensor& selection, const Tensor& slots,
                                            Integers layout, OptionalIntegers cu_seqlens) {
  constexpr const char* kOperation = "scatter backward";
  check_heads(kOperation, "dout", dout);
  const Size batch = size(dout, 0);
  SequencePlan plan = checked_plan(kOperation, config_of(layout), fixed_size(dout, 1), batch, cu_seqlens);
  check_index_arrays(kOperation, selection, slots, batch, kv_heads_of(kOperation, selection, size(dout, 2)), plan,
                     dout);
  Tensor drows = empty({batch, size(dout, 2), plan.gathered_len, size(dout, 3)}, dout);
  return {std::move(plan), std::move(drows)};
}

}  // namespace lighthouse::ops
