// Sections (i) to (iv) with the norm scorer on CUDA, in one pass over q, k and v.
#pragma once

#include "lighthouse/cuda_stages.h"
#include "ops/cuda_call.h"
#include "ops/prepare.h"

namespace lighthouse::ops {

/// One pass for norms, maxima and the coarsest means; gather then reads what was expanded only. `params` are those of
/// `prepared`, whose tensors are filled, on the device of `like`; what can_pool_and_score takes, and with a turn
/// can_turn_tokens, of two levels or more.
void gather_in_one_pass(const GatherParams& params, const Tensor& like, const HeadTurn& turn,
                        GatherByNormCall& prepared);

SelectedRows selected_rows(GatherByNormCall& prepared);

/// Both index arrays from the maxima of a call.
void select_on_device(CudaCall& call, SelectMaximaParams params, const SequencePlan& plan, const DevicePlan& on_device);

}  // namespace lighthouse::ops
