// The calls (calls/calls.h) on tensors of PyTorch's stable ABI, of torch 2.10 and newer (TORCH_TARGET_VERSION): no
// symbol of libtorch is used but C functions that PyTorch keeps.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "calls/context.h"

namespace lighthouse::stable {

using torch::stable::Tensor;

calls::TensorView view(const Tensor& x);

/// Of the device of `like`.
class StableContext final : public calls::CallContext {
 public:
  explicit StableContext(const Tensor& like);

  /// The results so far, in order.
  std::vector<Tensor> results;

  std::shared_ptr<void> keep(int64_t bytes) override;
  const ParallelFor& threads() override;
  CudaStream stream() override;

 private:
  calls::TensorView make_result(std::span<const int64_t> sizes, calls::Element element) override;
  void* make_scratch(int64_t bytes) override;

  torch::stable::Device device_;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;  ///< for torch's CUDA runtime
  std::vector<Tensor> scratch_;
};

}  // namespace lighthouse::stable
