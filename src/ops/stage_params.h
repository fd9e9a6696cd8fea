// Parameters of the stages from tensors that a prepare_ function has checked or made: the same for every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lighthouse/gather.h"
#include "lighthouse/scatter.h"
#include "lighthouse/score.h"
#include "ops/prepare.h"

namespace lighthouse::ops {

// A view of [B, N, H, D], and of rows [B, H, S, D].
inline ConstView by_token(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
inline ConstView by_row(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }
inline View by_token(at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
inline View by_row(at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }

TokenNormParams token_norm_params(const at::Tensor& x, at::Tensor& score);
GlaScoreParams gla_score_params(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                                int64_t dilation, at::OptionalIntArrayRef cu_seqlens, GlaScoresCall& call);
GatherParams gather_params(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
                           ThreeTensorsCall& call);
GatherBackwardParams gather_backward_params(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                            const at::Tensor& dv_rows, const at::Tensor& slots, ThreeTensorsCall& call);
ScatterParams scatter_params(const at::Tensor& rows, const at::Tensor& slots, OneTensorCall& call);
ScatterBackwardParams scatter_backward_params(const at::Tensor& dout, const at::Tensor& selection, OneTensorCall& call);

}  // namespace lighthouse::ops
