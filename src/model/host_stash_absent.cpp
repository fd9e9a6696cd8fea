// Builds without CUDA.
#include <vector>

#include "model/host_stash.h"

namespace lighthouse {

struct HostStash::Impl {
  std::vector<at::Tensor> tensors;
};

HostStash::HostStash() : impl_(std::make_unique<Impl>()) {}
HostStash::~HostStash() = default;

size_t HostStash::store(const at::Tensor& x) { return keep(x); }

size_t HostStash::keep(const at::Tensor& x) {
  impl_->tensors.push_back(x);
  return impl_->tensors.size() - 1;
}

at::Tensor HostStash::fetch(size_t place) { return std::exchange(impl_->tensors[place], at::Tensor()); }

}  // namespace lighthouse
