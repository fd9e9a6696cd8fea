// The operators that the public ones are made of, each with CPU, Meta and, where differentiable, autograd kernels;
// lighthouse::<name here> with an underscore before it. These functions call them through the dispatcher.
//
// Every operator is told about the gathered sequence by `int[] layout` = {num_levels, pooling_factor, topk, tile_topk}
// and `int[]? cu_seqlens`. A selection is two int32 index arrays:
//   selection [B, H_kv, S]          row -> flat entry
//   slots     [B, H_kv, num_slots]  slot index -> row or kNoRow
// Their shapes are checked. Their values are trusted (hence the underscore), but for those that invert_selection is
// given; they must come from select_entries or invert_selection with the same layout.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <array>
#include <cstdint>
#include <vector>

#include "lighthouse/geometry.h"
#include "lighthouse/ops.h"
#include "ops/tensor.h"

namespace lighthouse::ops {

std::array<int64_t, 4> layout_of(const SelectionConfig& config);
/// Offsets of packed documents as the operators take them: none of an empty list. A view.
inline at::OptionalIntArrayRef optional_offsets(const std::vector<int64_t>& cu_seqlens) {
  return cu_seqlens.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(cu_seqlens);
}

/// fp32 [B, H_kv, N] of x [B, N, H, D]: the largest of each group of heads.
at::Tensor token_norms(const at::Tensor& x, c10::SymInt num_kv_heads);

/// (s_qk, s_kq), fp32 [B, H_kv, N]; gate is fp32 [B, N, H].
TwoTensors gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                      int64_t dilation, at::OptionalIntArrayRef cu_seqlens);

/// (selection, slots) from scores fp32 [B, H_kv, N].
TwoTensors select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout, bool cover_prefix,
                          at::OptionalIntArrayRef cu_seqlens);

/// slots of a selection that the caller made. `check`: that it is a forest in gathered order (lighthouse/forest.h),
/// which on CUDA waits for the device; else its values are trusted, on the CPU but for their range.
at::Tensor invert_selection(const at::Tensor& selection, c10::SymInt seq_len, at::IntArrayRef layout,
                            at::OptionalIntArrayRef cu_seqlens, bool check);

/// Both index arrays of a selection that the caller made.
struct IndexMaps {
  at::Tensor selection, slots;
};
IndexMaps index_maps_of(const char* operation, const at::Tensor& selection, c10::SymInt seq_len,
                        const SelectionConfig& config, at::OptionalIntArrayRef cu_seqlens, bool check);

// The linear maps and their adjoints, each differentiable by means of the other. Autograd keeps the index arrays only.
ThreeTensors gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
                         const at::Tensor& slots, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);
ThreeTensors gather_rows_backward(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                  const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                  at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);
at::Tensor scatter_rows(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                        c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);
at::Tensor scatter_rows_backward(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                 at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);

/// Sections (i) to (iv) with scorer norm: token_norms, select_entries and gather_rows. On CUDA the scores and the
/// coarsest means come from one pass over q, k and v. Differentiable as gather_rows is.
SelectedRows gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::IntArrayRef layout,
                            bool cover_prefix, at::OptionalIntArrayRef cu_seqlens);
/// The same from the three operators, whatever the device.
SelectedRows gather_by_norm_composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     at::IntArrayRef layout, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens);

/// lighthouse_attention up to the scatter: o_rows [B, H, S, D], and what scatter_rows and its adjoint need. A caller
/// that keeps o_rows for backward need not keep the [B, N, H, D] that they scatter to.
struct AttendedRows {
  at::Tensor o_rows;
  IndexMaps maps;
  int64_t seq_len = 0;  ///< N
};
AttendedRows attend_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionOptions& options);
/// The same from rows that are gathered already: `options` without scores, gate or selection.
AttendedRows attend_selected(const SelectedRows& rows, int64_t seq_len, const AttentionOptions& options);

/// int32 offsets on the device of `like`, without pinned memory: a CUDA graph replays them.
at::Tensor offsets_like(const at::Tensor& like, at::IntArrayRef offsets);
at::Tensor offsets_like_composed(const at::Tensor& like, at::IntArrayRef offsets);

}  // namespace lighthouse::ops
