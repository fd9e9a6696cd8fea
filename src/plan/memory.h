// The memory that a training step takes on its device, at the moment when it takes most.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "plan/shape.h"

namespace lighthouse {

/// Bytes by kind at the peak of a step. All but `overhead` is what the tensor library counts as allocated.
struct StepMemory {
  int64_t weights = 0;      ///< fp32, with the gates of the gla scorer; with offload_weights matrices in `host`
  int64_t moments = 0;      ///< AdamW, two of fp32; with training.offload_optimizer in `host`
  int64_t gradients = 0;    ///< fp32, those that exist at the peak
  int64_t copies = 0;       ///< of weights, in the compute dtype
  int64_t kept = 0;         ///< for backward, by the layers and around them
  int64_t temporaries = 0;  ///< of the loss, or of one layer's backward
  int64_t workspace = 0;    ///< of the attention's backward
  int64_t overhead = 0;     ///< the CUDA context, libraries, what the allocator cannot use; on the CPU also `host`
  int64_t host = 0;         ///< of the host, for training.offload*, checkpoint.asynchronous; on a GPU pinned
  std::string peak;         ///< "the loss", "backward of layer 29 (dense)", "the optimizer"

  int64_t allocated() const { return weights + moments + gradients + copies + kept + temporaries + workspace; }
  int64_t total() const { return allocated() + overhead; }
};

/// Of stage 1 (`lighthouse`) or stage 2, on the rank of parallel.data x parallel.context that takes most. `on_cuda`:
/// with workspaces and context of a GPU.
StepMemory step_memory(const RunConfig& config, bool lighthouse, bool on_cuda);

/// The stages that a configuration has, as values for `lighthouse`: stage 1 where lighthouse_steps > 0, stage 2 where
/// steps are left.
std::vector<bool> stages_of(const TrainingConfig& training);

/// The largest of all stages' step_memory().total().
int64_t run_bytes(const RunConfig& config, bool on_cuda);

/// What it takes of the host, on a GPU: step_memory().host, the same in both stages.
int64_t run_host_bytes(const RunConfig& config);

/// What one layer keeps for backward, in bytes: the terms of step_memory().kept, for tests and tables.
struct KeptBytes {
  int64_t residual;   ///< the layer's input and the sum after attention, C each
  int64_t norms;      ///< two inverse root mean squares a token, fp32
  int64_t gate_up;    ///< 2 F
  int64_t qk_norm;    ///< heads before the norm of q and k, and its inverse root mean squares
  int64_t attention;  ///< dense: q, k, v, o, log-sum-exp; Lighthouse: the same of the rows, slots and selection
  int64_t all() const { return residual + norms + gate_up + qk_norm + attention; }
};
KeptBytes layer_kept(const RunConfig& config, const LayerShape& layer);

}  // namespace lighthouse
