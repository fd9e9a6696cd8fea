#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "model/host_stash.h"
#include "plan/pinned_blocks.h"

namespace lighthouse {
namespace {

/// Pinned memory for x.
std::vector<at::Tensor> blocks_for(const at::Tensor& x) {
  std::vector<at::Tensor> blocks;
  int64_t left = x.numel();
  for (const int64_t bytes : pinned_blocks(static_cast<int64_t>(x.nbytes()))) {
    const int64_t count = std::min(left, bytes / x.element_size());
    blocks.push_back(at::empty({count}, x.options().device(at::kCPU).pinned_memory(true)));
    left -= count;
  }
  return blocks;
}

/// visit(part of x, block) of contiguous x and where it lies on the host.
template <typename Visit>
void for_each_block(const at::Tensor& x, const std::vector<at::Tensor>& blocks, const Visit& visit) {
  const at::Tensor flat = x.view({-1});
  int64_t begin = 0;
  for (const at::Tensor& block : blocks) {
    visit(flat.narrow(0, begin, block.numel()), block);
    begin += block.numel();
  }
}

}  // namespace

struct HostStash::Impl {
  struct Entry {
    at::Tensor device;                            ///< on its way back, or never left
    std::vector<at::Tensor> host;                 ///< pinned, its elements one after another; empty: never left
    std::vector<int64_t> sizes;                   ///< of what is on the host
    std::optional<at::cuda::CUDAEvent> returned;  ///< on the copy stream, once the way back has begun
  };

  std::vector<Entry> entries;
  std::optional<c10::cuda::CUDAStream> copies;

  /// Everything the current stream was given so far comes before what the copy stream gets from now on.
  void copies_wait() {
    at::cuda::CUDAEvent now;
    now.record(c10::cuda::getCurrentCUDAStream(copies->device_index()));
    now.block(*copies);
  }

  void start_return(Entry& entry) {
    if (entry.host.empty() || entry.returned) return;
    entry.device = at::empty(entry.sizes, entry.host[0].options().device(copies->device()).pinned_memory(false));
    copies_wait();  // for what the memory was used for before
    {
      const c10::cuda::CUDAStreamGuard guard(*copies);
      for_each_block(entry.device, entry.host,
                     [](const at::Tensor& part, const at::Tensor& block) { part.copy_(block, /*non_blocking=*/true); });
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
  if (!x.is_cuda() || x.numel() == 0) return keep(x);
  Impl::Entry& entry = impl_->entries.emplace_back();
  if (!impl_->copies) impl_->copies = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, x.get_device());
  const at::Tensor dense = x.contiguous();
  entry.sizes = x.sizes().vec();
  entry.host = blocks_for(dense);
  impl_->copies_wait();
  const c10::cuda::CUDAStreamGuard guard(*impl_->copies);
  for_each_block(dense, entry.host,
                 [](const at::Tensor& part, const at::Tensor& block) { block.copy_(part, /*non_blocking=*/true); });
  c10::cuda::CUDACachingAllocator::recordStream(dense.storage().data_ptr(), *impl_->copies);
  return impl_->entries.size() - 1;
}

at::Tensor HostStash::fetch(size_t place) {
  Impl::Entry& entry = impl_->entries[place];
  if (!entry.host.empty()) {
    impl_->start_return(entry);
    entry.returned->block(c10::cuda::getCurrentCUDAStream(impl_->copies->device_index()));
    entry.host.clear();
  }
  if (place > 0) impl_->start_return(impl_->entries[place - 1]);
  return std::exchange(entry.device, at::Tensor());
}

}  // namespace lighthouse
