// Every stage of ours alone, on what the one before it made.
#pragma once

#include <ATen/core/Tensor.h>

#include "bench/contestant.h"
#include "bench/device.h"
#include "bench/results.h"

namespace lighthouse::bench {

struct StageBench {
  const Inputs& inputs;
  const AttentionCase& attention_case;
  const Device& device;
  TimingLimits limits;
};

/// On CUDA the kernels of lighthouse/cuda_stages.h, without an operator around them, and the calls that a scorer is
/// made of; on the CPU the operators, on what caches hold of their arguments.
StageTimings time_stages(const StageBench& bench);

StageTimings time_stages_cuda(const StageBench& bench);

/// int32 [B, H_kv, S]: what lighthouse_attention selects. The fused norm scorer of CUDA may round a norm otherwise than
/// token_scores, so it is asked itself.
at::Tensor selection_as_run(const Inputs& inputs, const AttentionCase& attention_case);
at::Tensor selection_by_norm_cuda(const Inputs& inputs, const AttentionCase& attention_case);

/// Multiplications and additions of causal attention, forward, of q [B, H, S, D].
double attention_flop(const at::Tensor& q);

}  // namespace lighthouse::bench
