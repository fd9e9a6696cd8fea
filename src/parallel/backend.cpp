#include "parallel/backend.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace lighthouse {

c10::intrusive_ptr<c10d::Backend> make_backend(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                                               c10::Device device, const std::string& address,
                                               std::chrono::milliseconds timeout) {
  return device.is_cuda() ? make_nccl(store, rank, size, timeout) : make_gloo(store, rank, size, address, timeout);
}

std::string recorded_collectives(c10::Device device) {
  return device.is_cuda() ? recorded_by_nccl() : recorded_by_gloo();
}

}  // namespace lighthouse
