// The matrices as the products read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/weights.h"

namespace lighthouse {

/// Copies of the matrices in the compute dtype on the device, or the matrices themselves where they are that already.
/// No autograd.
class ComputeWeights : public Matrices {
 public:
  ComputeWeights() = default;
  ComputeWeights(const Matrices& matrices, at::ScalarType dtype, at::Device device);

  /// Copies all again if one was written to, through torch, since the last time.
  void refresh();

  /// The copy of a parameter's `value`, all or rows of one of the matrices: a view, of its shape. Undefined where there
  /// is none.
  at::Tensor copy_of(const at::Tensor& value) const;

 private:
  at::Tensor add(const at::Tensor& source);

  at::TensorOptions options_;
  std::vector<at::Tensor> sources_, targets_;  ///< what is copied to where
  int64_t copied_version_ = -1;                ///< of the sources, when they were copied
};

}  // namespace lighthouse
