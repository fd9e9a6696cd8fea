// How long a run still takes.
#pragma once

#include <cstdint>

namespace lighthouse {

/// Follows the time between steps, with the validations and checkpoints that lie there.
class TimeLeft {
 public:
  /// Seconds for `steps_left` more, told `now`, the seconds of the session after a step.
  double after_step(double now, int64_t steps_left) {
    constexpr double kNew = 0.1;  // weight of the newest step in the moving average
    const double seconds = now - last_;
    average_ = average_ == 0 ? seconds : (1 - kNew) * average_ + kNew * seconds;
    last_ = now;
    return static_cast<double>(steps_left) * average_;
  }

 private:
  double average_ = 0;  ///< seconds of a step
  double last_ = 0;
};

}  // namespace lighthouse
