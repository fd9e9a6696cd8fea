// The time that a training step takes on a device that was measured.
#pragma once

#include "config/run_config.h"
#include "plan/device_profile.h"

namespace lighthouse {

/// Seconds of one optimizer step by part, all micro-batches together.
struct StepTime {
  double products = 0;    ///< matrix products of the layers
  double attention = 0;   ///< over all tokens in dense layers, over the gathered rows in the others
  double lighthouse = 0;  ///< scores, selection, gather, scatter and their backward
  double rows = 0;        ///< norms, RoPE, SwiGLU, residual sums: bound by memory
  double head = 0;        ///< embedding, head and loss
  double recompute = 0;   ///< what backward computes again
  double offload = 0;     ///< waiting for the host link
  double optimizer = 0;   ///< gradient norm, AdamW, copies of the weights; with its moments on the host their way
  double launches = 0;    ///< what the host takes longer to launch than the device to compute; short sequences
  double exchange = 0;    ///< of rows between ranks that share sequences, and putting them in order
  double gradients = 0;   ///< what backward does not hide of their sums over ranks, and updated parameters back

  double total() const {
    return products + attention + lighthouse + rows + head + recompute + offload + optimizer + launches + exchange +
           gradients;
  }
};

/// GPUs of a node where nothing else is said.
inline constexpr int64_t kNodeSize = 8;

/// Of stage 1 (`lighthouse`) or stage 2, of the rank of parallel.data x parallel.context that has most, in nodes of
/// `node_size` GPUs. The profile is the one of bf16; in_precision is applied here.
StepTime step_time(const RunConfig& config, bool lighthouse, const DeviceProfile& profile,
                   int64_t node_size = kNodeSize);

/// Seconds of all steps of both stages.
double run_seconds(const RunConfig& config, const DeviceProfile& profile, int64_t node_size = kNodeSize);

/// Seconds of one validation on the rank that reads most of it: a forward pass of every sequence, dense, and with
/// Lighthouse Attention too where stage 1 has it. Without what ranks exchange.
double validation_seconds(const RunConfig& config, const DeviceProfile& profile);

}  // namespace lighthouse
