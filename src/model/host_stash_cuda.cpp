#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>
#include <utility>
#include <vector>

#include "model/host_stash.h"

namespace lighthouse {
namespace {

struct Entry {
  at::Tensor device;                            ///< on its way back, or never left
  at::Tensor host;                              ///< pinned
  std::optional<at::cuda::CUDAEvent> returned;  ///< on the copy stream, once the way back has begun
};

}  // namespace

struct HostStash::Impl {
  std::vector<Entry> entries;
  std::optional<c10::cuda::CUDAStream> copies;

  /// Everything the current stream was given so far comes before what the copy stream gets from now on.
  void copies_wait() {
    at::cuda::CUDAEvent now;
    now.record(c10::cuda::getCurrentCUDAStream(copies->device_index()));
    now.block(*copies);
  }

  void start_return(Entry& entry) {
    if (!entry.host.defined() || entry.returned) return;
    entry.device = at::empty_like(entry.host, entry.host.options().device(copies->device()).pinned_memory(false));
    copies_wait();  // for what the memory was used for before
    {
      const c10::cuda::CUDAStreamGuard guard(*copies);
      entry.device.copy_(entry.host, /*non_blocking=*/true);
    }
    entry.returned.emplace();
    entry.returned->record(*copies);
  }
};

HostStash::HostStash() : impl_(std::make_unique<Impl>()) {}
HostStash::~HostStash() = default;

size_t HostStash::keep(const at::Tensor& x) {
  impl_->entries.emplace_back().device = x;
  return impl_->entries.size() - 1;
}

size_t HostStash::store(const at::Tensor& x) {
  if (!x.is_cuda()) return keep(x);
  Entry& entry = impl_->entries.emplace_back();
  if (!impl_->copies) impl_->copies = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, x.get_device());
  entry.host = at::empty_like(x, x.options().device(at::kCPU).pinned_memory(true));
  impl_->copies_wait();
  const c10::cuda::CUDAStreamGuard guard(*impl_->copies);
  entry.host.copy_(x, /*non_blocking=*/true);
  c10::cuda::CUDACachingAllocator::recordStream(x.storage().data_ptr(), *impl_->copies);
  return impl_->entries.size() - 1;
}

at::Tensor HostStash::fetch(size_t place) {
  Entry& entry = impl_->entries[place];
  if (entry.host.defined()) {
    impl_->start_return(entry);
    entry.returned->block(c10::cuda::getCurrentCUDAStream(impl_->copies->device_index()));
    entry.host.reset();
  }
  if (place > 0) impl_->start_return(impl_->entries[place - 1]);
  return std::exchange(entry.device, at::Tensor());
}

}  // namespace lighthouse
