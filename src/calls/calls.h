// The calls that the public functions are made of: each checks its arguments, asks the context for its results, in the
// order that stands here, and runs its stage where the arguments are. Two libraries adapt them to tensors: src/ops to
// at::Tensor, with autograd, for C++; src/stable as operators torch.ops.lighthouse._<name>, for Python.
//
// A selection is two int32 index arrays, contiguous:
//   selection [B, H_kv, S]          row -> flat entry
//   slots     [B, H_kv, num_slots]  slot index -> row or kNoRow
// Their shapes are checked. Their values are trusted, but for those that invert_selection is given; they must come from
// a call that makes them, with a plan of the same configuration.
//
// Wrong arguments throw InvalidArgument, what CUDA refuses CudaError (std::runtime_error).
#pragma once

#include <functional>

#include "calls/plan.h"
#include "lighthouse/head_turn.h"

namespace lighthouse::calls {

/// What was gathered, as a call is told of it.
struct GatheringView {
  PlanArgument plan;
  TensorView selection, slots;
};

/// fp32 [B, H_kv, N] of x [B, N, H, D]: the largest of each group of heads.
void token_norms(CallContext& context, const TensorView& x, int64_t num_kv_heads);

/// s_qk, s_kq, fp32 [B, H_kv, N]; gate is fp32 [B, N, H]. Of the plan only the documents count.
void gla_scores(CallContext& context, const Heads& x, const TensorView& gate, int64_t dilation,
                const PlanArgument& plan);

/// selection, slots from contiguous scores fp32 [B, H_kv, N].
void select_entries(CallContext& context, const TensorView& s_qk, const TensorView& s_kq, const PlanArgument& plan);

/// slots of a selection that the caller made. `check`: that it is a forest in gathered order (lighthouse/forest.h),
/// which on CUDA waits for the device, but while a CUDA graph is captured; else its values are trusted, on the CPU but
/// for their range.
void invert_selection(CallContext& context, const TensorView& selection, const PlanArgument& plan, bool check);

// The linear maps and their adjoints: heads by token to heads by row, and back.
void gather_rows(CallContext& context, const Heads& x, const GatheringView& gathering);
void gather_rows_backward(CallContext& context, const Heads& rows, const GatheringView& gathering);
void scatter_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering);
void scatter_rows_backward(CallContext& context, const TensorView& dout, const GatheringView& gathering);

// The same for a plan that is a part of another (part_of in lighthouse/geometry.h), with what crosses its cuts.
/// carried [B, L-1, H, D] by the part before (carry_rows), or null.
void scatter_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering,
                  const TensorView* carried);
/// dout_after [B, tokens_after, H, D] of the tokens behind the part, or null.
void scatter_rows_backward(CallContext& context, const TensorView& dout, const GatheringView& gathering,
                           const TensorView* dout_after);
/// carried [B, L-1, H, D], L >= 2, for the part after.
void carry_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering);

/// Sections (i) to (iv) with scorer norm: q_rows, k_rows, v_rows, selection, slots; token_norms, select_entries and
/// gather_rows, with the same bits. On CUDA the scores and the coarsest means come from one pass over q, k and v.
void gather_by_norm(CallContext& context, const Heads& x, const PlanArgument& plan);

/// What turns heads, asked for where a kernel does.
using MakeTurn = std::function<HeadTurn()>;

/// The same of q and k turned (lighthouse/head_turn.h, without a row_scale). False where no kernel does that: nothing
/// was made.
bool gather_turned_by_norm(CallContext& context, const Heads& x, const MakeTurn& turn, const PlanArgument& plan);

/// gather_rows_backward, dq and dk turned back and every token times its row_scale, rounded once:
/// [B, N, H + 2 * H_kv, D], dq, dk and dv behind one another. False where no kernel does that; the result is then empty
/// memory.
bool gather_rows_backward_turned(CallContext& context, const Heads& rows, const MakeTurn& turn,
                                 const GatheringView& gathering);

/// int32 offsets on the device of `like`, without pinned memory: a CUDA graph replays them.
void offsets_like(CallContext& context, const TensorView& like, std::span<const int64_t> offsets);

}  // namespace lighthouse::calls
