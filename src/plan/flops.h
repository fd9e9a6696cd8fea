// The arithmetic of a training step, and what devices could do of it: their ratio is the model FLOPs utilisation.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/run_config.h"
#include "plan/shape.h"

namespace lighthouse {

/// Forward of attention: two products of D channels, 4 D FLOPs, for each pair of a query and a key that it sees, in H
/// heads. Backward takes kAttentionBackward times as many: five products instead of two.
double attention_flops(double pairs, double num_heads, double head_dim);
/// The same of causal attention over `length` rows, which are length (length + 1) / 2 pairs.
double causal_attention_flops(double length, double num_heads, double head_dim);
inline constexpr double kAttentionBackward = 2.5;

/// Forward of what scores the tokens of one Lighthouse layer and one sequence. norm: none. dilated: two causal
/// attentions inside N / dilation tokens, for dilation residue classes. gla: two linear passes of a D x D state.
double scorer_flops(const RunConfig& config);

/// What one optimizer step needs, all micro-batches on all ranks, of stage 1 (`lighthouse`) or stage 2: matrix products
/// forward and backward (three times forward), attention forward and backward, the scorer forward. What is computed
/// again (training.recompute) does not count, nor do norms, softmax and the optimizer.
double step_flops(const RunConfig& config, bool lighthouse);

/// FLOP/s that the data sheet of a device promises for dense products, by its name as the driver gives it ("NVIDIA
/// H100 80GB HBM3") or in short ("h100"). `precision` is training.precision; fp32 is without tensor cores, as torch
/// computes it. nullopt for a device that is not known.
std::optional<double> device_peak_flops(std::string_view device_name, Precision precision);

}  // namespace lighthouse
