// Means with their standard errors, and shares with their intervals.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

namespace lighthouse {

/// What one independent unit, a sequence or a trial, adds to a mean: the sum of its values and how many they are.
struct PartialSum {
  double sum = 0;
  int64_t count = 0;
};

struct Mean {
  double value = 0;           ///< sum of sums / sum of counts; NaN without a value
  double standard_error = 0;  ///< over the parts that have values; NaN for fewer than two
  int64_t count = 0;          ///< values
};

/// With r the mean and e = sum - r count of each of n parts, the standard error is that of a ratio,
/// sqrt(n / (n - 1) * sum of e^2) / sum of counts; for parts of equal counts the usual one.
Mean mean_of(std::span<const PartialSum> parts);

struct Interval {
  double low = 0, high = 1;
};
/// Wilson's 95 % interval of a probability that came true `hits` times in `trials` (at least 1).
Interval wilson_interval(int64_t hits, int64_t trials);

/// The number, or null where it is not finite.
nlohmann::ordered_json finite(double number);

}  // namespace lighthouse
