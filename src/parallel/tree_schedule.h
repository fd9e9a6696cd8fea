// The order of tree_sum (tree_sum.h) where there is room for few terms at a time. Knows no torch.
#pragma once

#include <cstdint>
#include <vector>

namespace lighthouse {

/// One term of the tree of tree_sum, where terms are made one after another.
struct TreeStep {
  int64_t term;    ///< which to make next and to put on a stack
  int64_t merges;  ///< so often, then, the last sum of the stack is added to the one before and goes
};
/// The tree of `count` terms, with at most 1 + ceil(log2(count)) of them on the stack.
std::vector<TreeStep> tree_schedule(int64_t count);
/// Of each step, how many sums are on the stack while its term is made.
std::vector<int64_t> held_sums(const std::vector<TreeStep>& steps);

}  // namespace lighthouse
