#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <tuple>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// The first step done of the decay is `begin` + 1.
int64_t decay_begin(const OptimizerConfig& optimizer, int64_t num_steps) {
  if (optimizer.schedule != Schedule::kWsd) return optimizer.warmup_steps;
  const int64_t decay_steps = optimizer.decay_steps > 0 ? optimizer.decay_steps : std::max<int64_t>(num_steps / 10, 1);
  return std::max(optimizer.warmup_steps, num_steps - decay_steps);
}

/// The share of the full rate when a share `t` of the decay is done.
double decayed(Schedule schedule, double t, double min_ratio) {
  switch (schedule) {
    case Schedule::kConstant:
      return 1;
    case Schedule::kCosine:
      return min_ratio + (1 - min_ratio) * (1 + std::cos(std::numbers::pi * t)) / 2;
    case Schedule::kLinear:
    case Schedule::kWsd:
      return 1 + (min_ratio - 1) * t;
  }
  throw InvalidArgument("learning_rate_at: a schedule that is none");
}

/// Steps from the first on whose rate is that of a warm-up and a constant.
int64_t steps_before_decay(const RunConfig& config) {
  return config.optimizer.schedule == Schedule::kConstant ? std::numeric_limits<int64_t>::max()
                                                          : decay_begin(config.optimizer, config.training.steps);
}

/// All that a decay is made of, but the rate that it begins with.
auto decay_of(const RunConfig& config) {
  return std::tuple(config.optimizer.schedule, config.training.steps, steps_before_decay(config),
                    config.optimizer.min_learning_rate_ratio);
}

}  // namespace

Stage stage_at(const TrainingConfig& training, int64_t step) {
  return step < training.lighthouse_steps ? Stage::kLighthouse : Stage::kDense;
}

std::string stage_name(Stage stage, const AttentionConfig& attention) {
  return stage == Stage::kDense ? "dense" : std::string(word(attention.method));
}

double learning_rate_at(const OptimizerConfig& optimizer, int64_t num_steps, int64_t step) {
  LIGHTHOUSE_CHECK(step >= 0 && step < num_steps, "learning_rate_at: step ", step, " must be in [0, ", num_steps, ")");
  const int64_t done = step + 1;
  if (done <= optimizer.warmup_steps) {
    return optimizer.learning_rate * static_cast<double>(done) / static_cast<double>(optimizer.warmup_steps);
  }
  const int64_t begin = decay_begin(optimizer, num_steps);
  const double t = done <= begin ? 0 : static_cast<double>(done - begin) / static_cast<double>(num_steps - begin);
  return optimizer.learning_rate * decayed(optimizer.schedule, t, optimizer.min_learning_rate_ratio);
}

std::string difference_of_past(const RunConfig& before, const RunConfig& now, int64_t num_done) {
  if (num_done > now.training.steps) {
    return detail::concat(num_done, " steps are done, more than training.steps = ", now.training.steps);
  }
  const int64_t stage_1 = std::min(before.training.lighthouse_steps, num_done);
  const int64_t would_be = std::min(now.training.lighthouse_steps, num_done);
  if (stage_1 != would_be) {
    return detail::concat("of ", num_done, " steps that are done ", stage_1, " are of stage 1, and ", would_be,
                          " would be");
  }
  const int64_t alike = std::min(steps_before_decay(before), steps_before_decay(now));
  if (num_done <= alike || decay_of(before) == decay_of(now)) return "";
  return detail::concat("of ", num_done, " steps that are done those after step ", alike,
                        " would have another learning rate; a schedule can change until its rate begins to fall");
}

}  // namespace lighthouse
