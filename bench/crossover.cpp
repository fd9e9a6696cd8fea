#include <cmath>

#include "bench/attention_report.h"

namespace lighthouse::bench {
namespace {

/// Of dense over ours, by length.
struct SpeedUp {
  double log_len, log_ratio;
};

std::vector<SpeedUp> speed_ups(const std::vector<CaseResult>& results, Timing Passes::*pass) {
  std::vector<SpeedUp> points;
  for (const CaseResult& result : results) {
    const Timing& dense = result.dense.*pass;
    const Timing& ours = result.lighthouse.*pass;
    if (!has_paper_shape(result.attention_case) || dense.repeats == 0 || ours.repeats == 0) continue;
    points.push_back(
        {std::log(static_cast<double>(result.attention_case.seq_len)), std::log(dense.median_ms / ours.median_ms)});
  }
  return points;
}

}  // namespace

std::optional<double> crossover_length(const std::vector<CaseResult>& results, Timing Passes::*pass) {
  const std::vector<SpeedUp> points = speed_ups(results, pass);
  if (points.empty() || points.back().log_ratio < 0) return std::nullopt;
  size_t first = points.size() - 1;  // of the lengths from which on ours stays faster
  while (first > 0 && points[first - 1].log_ratio >= 0) --first;
  if (first == 0) return std::exp(points.front().log_len);
  const SpeedUp& slower = points[first - 1];
  const SpeedUp& faster = points[first];
  const double share = -slower.log_ratio / (faster.log_ratio - slower.log_ratio);
  return std::exp(slower.log_len + share * (faster.log_len - slower.log_len));
}

}  // namespace lighthouse::bench
