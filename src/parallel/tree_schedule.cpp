#include "parallel/tree_schedule.h"

namespace lighthouse {

std::vector<TreeStep> tree_schedule(int64_t count) {
  std::vector<TreeStep> steps;
  const auto visit = [&](const auto& self, int64_t first, int64_t stride) -> void {
    if (first + stride >= count) {
      steps.push_back({first, 0});
      return;
    }
    self(self, first, 2 * stride);
    self(self, first + stride, 2 * stride);
    ++steps.back().merges;
  };
  if (count > 0) visit(visit, 0, 1);
  return steps;
}

std::vector<int64_t> held_sums(const std::vector<TreeStep>& steps) {
  std::vector<int64_t> held;
  int64_t now = 0;
  for (const TreeStep& step : steps) {
    held.push_back(now);
    now += 1 - step.merges;
  }
  return held;
}

}  // namespace lighthouse
