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
  double seconds = 5;        ///< a function is done after this long, once it was run often enough:
  int64_t min_repeats = 20;  ///< this often,
  int64_t slow_repeats = 3;  ///< or this often where a run takes more than a second
  int64_t max_repeats = 100;
};

/// Of one call where `calls` of them were timed together.
Timing per_call(const Timing& timing, int64_t calls);

using Function = std::function<void()>;

/// Calls a function and returns how many milliseconds it took.
using Stopwatch = std::function<double(const Function&)>;

/// For what is done when the call returns.
double time_on_host(const Function& function);

/// Runs every function three times to warm up (fewer where that takes more than a second), then all of them in turn
/// until each is done: what slows the machine for a while slows all of them.
std::vector<Timing> measure(const std::vector<Function>& functions, const TimingLimits& limits,
                            const Stopwatch& stopwatch = time_on_host);
Timing measure(const Function& function, const TimingLimits& limits, const Stopwatch& stopwatch = time_on_host);

}  // namespace lighthouse::bench
