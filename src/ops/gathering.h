// The functions that the public ones are made of: the calls (calls/calls.h) on at::Tensor, with autograd. No gradient
// passes through scores and selections.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "calls/plan.h"
#include "lighthouse/ops.h"
#include "nn/rotation.h"

namespace lighthouse::ops {

using TwoTensors = std::tuple<at::Tensor, at::Tensor>;
using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// What was gathered, and the plan it follows: all that scatter and the adjoints need. Its index arrays are trusted.
struct Gathering {
  calls::SharedPlan plan;
  at::Tensor selection;  ///< int32 [B, H_kv, S]: row -> flat entry
  at::Tensor slots;      ///< int32 [B, H_kv, num_slots]: slot index -> row or kNoRow
};

struct GatheredRows : Rows {
  Gathering gathering;
};

/// Of a public function's arguments; packed documents need B = 1.
calls::SharedPlan plan_of(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch,
                          at::OptionalIntArrayRef cu_seqlens);

/// fp32 [B, H_kv, N] of x [B, N, H, D]: the largest of each group of heads.
at::Tensor token_norms(const at::Tensor& x, int64_t num_kv_heads);

/// (s_qk, s_kq), fp32 [B, H_kv, N]; gate is fp32 [B, N, H]. Of the plan only the documents count.
TwoTensors gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                      int64_t dilation, const calls::SharedPlan& plan);

/// From scores fp32 [B, H_kv, N].
Gathering select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, const calls::SharedPlan& plan);

/// From a selection that the caller made. `check`: that it is a forest in gathered order (lighthouse/forest.h), which
/// on CUDA waits for the device.
Gathering invert_selection(const char* operation, const at::Tensor& selection, const calls::SharedPlan& plan,
                           bool check);

// The linear maps of heads and their adjoints, each differentiable by means of the other. Autograd keeps the gathering.
Rows gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Gathering& gathering);
ThreeTensors gather_rows_backward(const Rows& rows, const Gathering& gathering);
at::Tensor scatter_rows(const at::Tensor& rows, const Gathering& gathering);
at::Tensor scatter_rows_backward(const at::Tensor& dout, const Gathering& gathering);

// Of a part of a row, without autograd: what crosses its cuts may be undefined.
/// carried [B, L-1, H, D] is what the part before made by carry_rows.
at::Tensor scatter_rows(const at::Tensor& rows, const Gathering& gathering, const at::Tensor& carried);
/// dout_after [B, tokens_after, H, D] is of the tokens behind the part.
at::Tensor scatter_rows_backward(const at::Tensor& dout, const Gathering& gathering, const at::Tensor& dout_after);
at::Tensor carry_rows(const at::Tensor& rows, const Gathering& gathering);

/// Sections (i) to (iv) with scorer norm. Differentiable as gather_rows is.
GatheredRows gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const calls::SharedPlan& plan);

// Gather and its adjoint with RoPE as part of them, for a layer whose heads are not turned yet; without autograd, for
// use inside autograd functions. None where no kernel does that (lighthouse/cuda_stages.h: can_turn_tokens,
// can_turn_gradients).

/// gather_by_norm of q and k turned, with the same bits.
std::optional<GatheredRows> gather_turned_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const Rotation& rotation, const calls::SharedPlan& plan);
/// What gather_rows_backward makes, dq and dk turned back and every token times its row_scale fp32 [B, N], rounded
/// once: [B, N, H + 2 * H_kv, D], dq, dk and dv behind one another.
std::optional<at::Tensor> gather_rows_backward_turned(const Rows& rows, const Gathering& gathering,
                                                      const Rotation& rotation, const at::Tensor& row_scale);

/// int32 offsets on the device of `like`, without pinned memory: a CUDA graph replays them.
at::Tensor offsets_like(const at::Tensor& like, at::IntArrayRef offsets);

// lighthouse_attention up to the scatter. A caller that keeps o_rows for backward need not keep the [B, N, H, D] that
// they scatter to.

/// Sections (i) to (iv), with the plan instead of that of the options.
GatheredRows select_and_gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const calls::SharedPlan& plan, const AttentionOptions& options);
/// Section (v): o_rows [B, H, S, D].
at::Tensor attend(const Rows& rows, const calls::SharedPlan& plan, const AttentionOptions& options);
/// token_scores for the documents of a plan.
TwoTensors token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ScoreConfig& config,
                        const std::optional<at::Tensor>& gate, const calls::SharedPlan& plan);

}  // namespace lighthouse::ops
