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

}  // namespace lighthouse
