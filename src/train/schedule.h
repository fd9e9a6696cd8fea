// Stage and learning rate of a run as functions of the step alone: nothing to save, nothing to get wrong on a resume.
//
// Step `step`, counted from 0, is the one that brings a run from `step` to `step + 1` steps done.
#pragma once

#include <cstdint>
#include <string>

#include "config/run_config.h"

namespace lighthouse {

/// docs/algorithm.md, two-stage training.
enum class Stage { kLighthouse = 1, kDense = 2 };

Stage stage_at(const TrainingConfig& training, int64_t step);
/// What attention it has: "dense", or attention.method.
std::string stage_name(Stage stage, const AttentionConfig& attention);

/// The rate of step `step` of `num_steps`. With d = step + 1, w = warmup_steps and r = min_learning_rate_ratio it is
/// learning_rate times
///   d / w                                          while d <= w,
///   1                                              constant
///   r + (1 - r) (1 + cos(pi t)) / 2                cosine, t = (d - w) / (num_steps - w)
///   1 + (r - 1) t                                  linear, the same t
///   1, then 1 + (r - 1) (d - b) / (num_steps - b)  wsd, from d = b = max(w, num_steps - decay_steps)
/// so that the last step of the warm-up has the full rate and the last of all has r of it (constant: all).
double learning_rate_at(const OptimizerConfig& optimizer, int64_t num_steps, int64_t step);

/// Why the first `num_done` steps of a run that was `before` are not what they would have been with `now`: these have
/// another stage, or another rate by steps, schedule, decay_steps or min_learning_rate_ratio. "" where they are.
std::string difference_of_past(const RunConfig& before, const RunConfig& now, int64_t num_done);

}  // namespace lighthouse
