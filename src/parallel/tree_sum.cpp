#include "parallel/tree_sum.h"

#include <utility>

#include "lighthouse/check.h"

namespace lighthouse {

at::Tensor tree_sum(std::vector<at::Tensor> terms) {
  LIGHTHOUSE_CHECK(!terms.empty(), "tree_sum: no terms");
  if (terms.size() == 1) return std::move(terms.front());
  std::vector<at::Tensor> evens, odds;
  for (size_t i = 0; i < terms.size(); ++i) (i % 2 == 0 ? evens : odds).push_back(std::move(terms[i]));
  at::Tensor sum = tree_sum(std::move(evens));
  return sum.add_(tree_sum(std::move(odds)));
}

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

}  // namespace lighthouse
