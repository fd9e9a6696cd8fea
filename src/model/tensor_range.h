// Runs of elements of named tensors: what one rank keeps of the moments, and what a file holds of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/named_tensors.h"

namespace lighthouse {

/// Elements [begin, end) of a tensor, counted in memory order (row-major), as Piece counts them (parallel/pieces.h).
struct TensorRange {
  std::string name;            ///< of the whole tensor
  std::vector<int64_t> shape;  ///< of the whole tensor; {} for a scalar, whose range is [0, 1)
  int64_t begin = 0;
  at::Tensor values;  ///< [end - begin], contiguous, on any device; a view of what is live, or a copy
  int64_t end() const { return begin + values.numel(); }
};

/// Contiguous tensors as ranges of all their elements: views.
std::vector<TensorRange> whole_ranges(const NamedTensors& tensors);

/// The opposite: views in the shapes of the tensors. Throws InvalidArgument naming a range that is not all of its
/// tensor.
NamedTensors whole_tensors(const std::vector<TensorRange>& ranges);

int64_t total_bytes(const std::vector<TensorRange>& ranges);

}  // namespace lighthouse
