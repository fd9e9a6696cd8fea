#include "eval/statistics.h"

#include <cmath>
#include <limits>

#include "lighthouse/check.h"

namespace lighthouse {

Mean mean_of(std::span<const PartialSum> parts) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  Mean mean{kUnknown, kUnknown, 0};
  int64_t num_parts = 0;
  for (const PartialSum& part : parts) {
    sum += part.sum;
    mean.count += part.count;
    num_parts += part.count > 0 ? 1 : 0;
  }
  if (mean.count == 0) return mean;
  const auto count = static_cast<double>(mean.count);
  mean.value = sum / count;
  if (num_parts < 2) return mean;
  double squares = 0;
  for (const PartialSum& part : parts) {
    const double error = part.sum - mean.value * static_cast<double>(part.count);
    squares += error * error;
  }
  const auto n = static_cast<double>(num_parts);
  mean.standard_error = std::sqrt(n / (n - 1) * squares) / count;
  return mean;
}

Interval wilson_interval(int64_t hits, int64_t trials) {
  LIGHTHOUSE_CHECK(trials >= 1 && hits >= 0 && hits <= trials, "wilson_interval: ", hits, " hits in ", trials,
                   " trials; there must be a trial, and no more hits than trials");
  constexpr double kZ = 1.959963984540054;  // of 95 %
  const auto n = static_cast<double>(trials);
  const double share = static_cast<double>(hits) / n;
  const double center = share + kZ * kZ / (2 * n);
  const double reach = kZ * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 / (1 + kZ * kZ / n);
  // At the ends exactly, where rounding may leave the share outside.
  return {hits == 0 ? 0 : scale * (center - reach), hits == trials ? 1 : scale * (center + reach)};
}

nlohmann::ordered_json finite(double number) {
  return std::isfinite(number) ? nlohmann::ordered_json(number) : nlohmann::ordered_json();
}

}  // namespace lighthouse
