// Gather and its adjoint with RoPE as part of them: for a layer whose heads are not turned yet. Functions, no
// operators: without dispatch and autograd, for use inside autograd functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/internal.h"

namespace lighthouse::ops {

/// Of every token, fp32 [N, D/2]: channel c turns with channel c + D/2.
struct Angles {
  const at::Tensor& cos;
  const at::Tensor& sin;
};

/// gather_by_norm of q and k turned, with the same bits; none where no kernel does that (lighthouse/cuda_stages.h,
/// can_turn_tokens) and the caller has to turn them first.
std::optional<SelectedRows> gather_turned_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const Angles& angles, at::IntArrayRef layout, bool cover_prefix,
                                                  at::OptionalIntArrayRef cu_seqlens);

/// What gather_rows_backward makes, dq and dk turned back and every token times its row_scale fp32 [B, N], rounded
/// once: [B, N, H + 2 * H_kv, D], dq, dk and dv behind one another. None where no kernel does that
/// (can_turn_gradients).
std::optional<at::Tensor> gather_rows_backward_turned(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                                      const at::Tensor& dv_rows, const IndexMaps& maps, int64_t seq_len,
                                                      const Angles& angles, const at::Tensor& row_scale,
                                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens);

}  // namespace lighthouse::ops
