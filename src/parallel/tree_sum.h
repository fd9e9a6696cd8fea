// Sums in an order that does not depend on how the terms are dealt out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lighthouse {

/// The sum of equally shaped terms as a tree of pairs: tree(x) = tree(x[0], x[2], …) + tree(x[1], x[3], …). Of W ranks,
/// W a power of two, of which rank r sums terms r, r + W, … in this way, the same tree over the ranks' sums has the
/// bits of one process that sums all. Uses the memory of the terms; at least one.
at::Tensor tree_sum(std::vector<at::Tensor> terms);

/// One term of a tree whose terms are made one after another.
struct TreeStep {
  int64_t term;    ///< which to make next and to put on a stack
  int64_t merges;  ///< so often, then, the last sum of the stack is added to the one before and goes
};
/// The tree of `count` terms, with at most 1 + ceil(log2(count)) of them on the stack.
std::vector<TreeStep> tree_schedule(int64_t count);

}  // namespace lighthouse
