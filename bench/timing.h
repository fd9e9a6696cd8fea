// How long something takes.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace lighthouse::bench {

/// Of the measured runs, in milliseconds.
struct Timing {
  double median_ms = 0;
  double q1_ms = 0;  ///< quartiles
  double q3_ms = 0;
  int64_t repeats = 0;  ///< 0: not measured
};

struct TimingLimits {
  double seconds = 5;  ///< stop after this long, once min_repeats are done
  int64_t min_repeats = 3;
  int64_t max_repeats = 100;
};

/// Runs every function once to warm up, then all of them in turn until the limits: what slows the machine for a while
/// slows all of them. `seconds` is for all together.
std::vector<Timing> measure(const std::vector<std::function<void()>>& functions, const TimingLimits& limits);
Timing measure(const std::function<void()>& function, const TimingLimits& limits);

}  // namespace lighthouse::bench
