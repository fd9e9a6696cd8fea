#include "bench/timing.h"

#include <algorithm>
#include <chrono>

namespace lighthouse::bench {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
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

std::vector<Timing> measure(const std::vector<std::function<void()>>& functions, const TimingLimits& limits) {
  for (const auto& function : functions) function();
  std::vector<std::vector<double>> times_ms(functions.size());
  const Clock::time_point start = Clock::now();
  for (int64_t round = 0; round < limits.max_repeats; ++round) {
    if (round >= limits.min_repeats && milliseconds_since(start) > limits.seconds * 1e3) break;
    for (size_t i = 0; i < functions.size(); ++i) {
      const Clock::time_point before = Clock::now();
      functions[i]();
      times_ms[i].push_back(milliseconds_since(before));
    }
  }
  std::vector<Timing> timings;
  timings.reserve(times_ms.size());
  for (auto& times : times_ms) timings.push_back(summary(std::move(times)));
  return timings;
}

Timing measure(const std::function<void()>& function, const TimingLimits& limits) {
  return measure(std::vector<std::function<void()>>{function}, limits).front();
}

}  // namespace lighthouse::bench
