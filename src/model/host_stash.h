// Tensors of the device that wait in pinned host memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>

namespace lighthouse {

/// Takes tensors in forward's order and gives them back in the opposite one. Copies run on a stream of their own beside
/// the computation; fetching a tensor starts the copy of the one before it. On the CPU, and in builds without CUDA,
/// tensors are kept as they are.
class HostStash {
 public:
  HostStash();
  ~HostStash();
  HostStash(const HostStash&) = delete;
  HostStash& operator=(const HostStash&) = delete;

  /// The place of x, which may be freed or reused by the caller's stream afterwards. Throws c10::Error when the host
  /// has no memory left to pin.
  size_t store(const at::Tensor& x);
  /// The place of x, which stays where it is.
  size_t keep(const at::Tensor& x);
  /// The tensor at a place, on its device, usable on the current stream. Once for each place.
  at::Tensor fetch(size_t place);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lighthouse
