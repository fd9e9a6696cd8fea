// Parameters of the stages from tensors that a prepare_ function has checked or made: the same for every device.
#pragma once

#include <cstdint>

#include "lighthouse/gather.h"
#include "lighthouse/scatter.h"
#include "lighthouse/score.h"
#include "ops/prepare.h"

namespace lighthouse::ops {

// A view of [B, N, H, D], and of rows [B, H, S, D].
inline ConstView by_token(const Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
inline ConstView by_row(const Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }
inline View by_token(Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }
inline View by_row(Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(2), x.stride(1)}; }

TokenNormParams token_norm_params(const Tensor& x, Tensor& score);
GlaScoreParams gla_score_params(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                                OptionalIntegers cu_seqlens, GlaScoresCall& call);
GatherParams gather_params(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                           ThreeTensorsCall& call);
GatherBackwardParams gather_backward_params(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                            const Tensor& slots, ThreeTensorsCall& call);
ScatterParams scatter_params(const Tensor& rows, const Tensor& slots, OneTensorCall& call);
ScatterBackwardParams scatter_backward_params(const Tensor& dout, const Tensor& selection, OneTensorCall& call);

}  // namespace lighthouse::ops
