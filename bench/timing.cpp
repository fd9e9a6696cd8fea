#include "bench/timing.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace lighthouse::bench {
namespace {

constexpr double kSlowMs = 1000;
constexpr int kWarmUps = 3;

void warm_up(const std::vector<Function>& functions, const Stopwatch& stopwatch) {
  double total_ms = 0;
  for (int round = 0; round < kWarmUps && total_ms <= kSlowMs; ++round) {
    for (const Function& function : functions) total_ms += stopwatch(function);
  }
}

bool is_done(const std::vector<double>& times_ms, const TimingLimits& limits) {
  const auto repeats = static_cast<int64_t>(times_ms.size());
  if (repeats == 0 || repeats >= limits.max_repeats) return repeats > 0;
  const double total_ms = std::accumulate(times_ms.begin(), times_ms.end(), 0.0);
  const bool slow = total_ms / static_cast<double>(repeats) > kSlowMs;
  return repeats >= (slow ? limits.slow_repeats : limits.min_repeats) && total_ms >= limits.seconds * 1e3;
}

/// The value below which the given share of them lies, between two of them in proportion.
double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Timing summary(std::vector<double> times_ms) {
  std::sort(times_ms.begin(), times_ms.end());
  return {quantile(times_ms, 0.5), quantile(times_ms, 0.25), quantile(times_ms, 0.75),
          static_cast<int64_t>(times_ms.size())};
}

}  // namespace

Timing per_call(const Timing& timing, int64_t calls) {
  const auto count = static_cast<double>(calls);
  return {timing.median_ms / count, timing.q1_ms / count, timing.q3_ms / count, timing.repeats};
}

double time_on_host(const Function& function) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  function();
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<Timing> measure(const std::vector<Function>& functions, const TimingLimits& limits,
                            const Stopwatch& stopwatch) {
  warm_up(functions, stopwatch);
  std::vector<std::vector<double>> times_ms(functions.size());
  for (bool any_ran = true; any_ran;) {
    any_ran = false;
    for (size_t i = 0; i < functions.size(); ++i) {
      if (is_done(times_ms[i], limits)) continue;
      times_ms[i].push_back(stopwatch(functions[i]));
      any_ran = true;
    }
  }
  std::vector<Timing> timings;
  timings.reserve(times_ms.size());
  for (auto& times : times_ms) timings.push_back(summary(std::move(times)));
  return timings;
}

Timing measure(const Function& function, const TimingLimits& limits, const Stopwatch& stopwatch) {
  return measure(std::vector<Function>{function}, limits, stopwatch).front();
}

}  // namespace lighthouse::bench
