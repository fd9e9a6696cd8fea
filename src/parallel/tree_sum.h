// Sums in an order that does not depend on how the terms are dealt out.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lighthouse {

/// The sum of equally shaped terms as a tree of pairs: tree(x) = tree(x[0], x[2], …) + tree(x[1], x[3], …). Of W ranks,
/// W a power of two, of which rank r sums terms r, r + W, … in this way, the same tree over the ranks' sums has the
/// bits of one process that sums all. Uses the memory of the terms; at least one.
at::Tensor tree_sum(std::vector<at::Tensor> terms);

}  // namespace lighthouse
