#include "train/moment_transfer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <optional>

#include "lighthouse/check.h"
#include "train/host_room.h"
#include "train/out_of_memory.h"
#ifdef LIGHTHOUSE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace lighthouse {
namespace {

constexpr const char* kWhat = "for moments of the optimizer";
constexpr const char* kRemedy =
    "training.offload_optimizer = false keeps them on the device, and checkpoint.asynchronous = false needs no second "
    "copy of them here";

int64_t bytes_of(int64_t num_elements) { return num_elements * static_cast<int64_t>(sizeof(float)); }

#ifdef LIGHTHOUSE_WITH_CUDA
/// The same memory, page-locked for as long as it lives. Not from torch's allocator of such memory, which rounds each
/// tensor up to a power of two.
at::Tensor page_locked(const at::Tensor& memory) {
  if (memory.numel() == 0) return memory;
  const cudaError_t error = cudaHostRegister(memory.mutable_data_ptr(), memory.nbytes(), cudaHostRegisterDefault);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw no_host_memory(static_cast<int64_t>(memory.nbytes()), kWhat,
                         detail::concat("cannot page-lock it: ", cudaGetErrorString(error)), kRemedy);
  }
  const auto unlock = [memory](void* data) { cudaHostUnregister(data); };
  return at::from_blob(memory.mutable_data_ptr(), memory.sizes(), unlock, memory.options());
}
#else
at::Tensor page_locked(const at::Tensor& memory) { return memory; }  // for no device of this build
#endif

std::vector<MomentPart> parts_of(const std::vector<at::Tensor>& exp_avgs, const std::vector<at::Tensor>& exp_avg_sqs,
                                 int64_t part_elements) {
  std::vector<MomentPart> parts;
  for (size_t index = 0; index < exp_avgs.size(); ++index) {
    for (int64_t begin = 0; begin < exp_avgs[index].numel(); begin += part_elements) {
      const int64_t end = std::min(begin + part_elements, exp_avgs[index].numel());
      parts.push_back(
          {index, begin, end, exp_avgs[index].slice(0, begin, end), exp_avg_sqs[index].slice(0, begin, end)});
    }
  }
  return parts;
}

/// Parts of moments on a device with streams.
class Transfer {
 public:
  Transfer(at::Device device, int64_t part_elements)
      : device_(device),
        streams_(device.type()),
        in_(streams_.getStreamFromGlobalPool(device)),
        out_(streams_.getStreamFromGlobalPool(device)) {
    for (Slot& slot : slots_) {
      for (at::Tensor* moment : {&slot.exp_avg, &slot.exp_avg_sq}) {
        *moment = at::empty({part_elements}, at::TensorOptions(device).dtype(at::kFloat));
      }
    }
    wait(in_, here());  // for what the memory was used for before
  }
  ~Transfer() {  // before the memory is given back
    in_.synchronize();
    out_.synchronize();
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  void fetch(size_t number, const MomentPart& host) {
    Slot& slot = slot_of(number);
    if (slot.left) slot.left->block(in_);
    const MomentPart part = on_device(number, host);
    const c10::StreamGuard guard(in_);
    part.exp_avg.copy_(host.exp_avg, /*non_blocking=*/true);
    part.exp_avg_sq.copy_(host.exp_avg_sq, /*non_blocking=*/true);
    record(slot.arrived, in_);
  }
  /// Usable on the current stream.
  MomentPart take(size_t number, const MomentPart& host) {
    slot_of(number).arrived->block(here());
    return on_device(number, host);
  }
  void bring_back(size_t number, const MomentPart& host) {
    const MomentPart part = on_device(number, host);
    wait(out_, here());
    const c10::StreamGuard guard(out_);
    host.exp_avg.copy_(part.exp_avg, /*non_blocking=*/true);
    host.exp_avg_sq.copy_(part.exp_avg_sq, /*non_blocking=*/true);
    record(slot_of(number).left, out_);
  }

 private:
  struct Slot {
    at::Tensor exp_avg, exp_avg_sq;
    std::optional<c10::Event> arrived, left;
  };
  Slot& slot_of(size_t number) { return slots_[number % kMomentPartsOnDevice]; }
  MomentPart on_device(size_t number, const MomentPart& host) {
    const Slot& slot = slot_of(number);
    const int64_t size = host.end - host.begin;
    return {host.index, host.begin, host.end, slot.exp_avg.slice(0, 0, size), slot.exp_avg_sq.slice(0, 0, size)};
  }
  c10::Stream here() const { return streams_.getStream(device_); }
  void record(std::optional<c10::Event>& event, const c10::Stream& stream) const {
    event.emplace(device_.type());
    event->record(stream);
  }
  void wait(const c10::Stream& later, const c10::Stream& earlier) const {
    c10::Event now(device_.type());
    now.record(earlier);
    now.block(later);
  }

  at::Device device_;
  c10::impl::VirtualGuardImpl streams_;
  c10::Stream in_, out_;
  Slot slots_[kMomentPartsOnDevice];
};

}  // namespace

void check_moment_room(int64_t num_elements, at::Device device) {
  if (device.is_cuda()) check_host_room(2 * bytes_of(num_elements), kWhat, kRemedy);
}

at::Tensor host_zeros(at::IntArrayRef sizes, at::Device device) {
  at::Tensor memory;
  try {
    memory = at::zeros(sizes, at::kFloat);
  } catch (const c10::Error& error) {
    throw no_host_memory(bytes_of(c10::multiply_integers(sizes)), kWhat, words_of(error), kRemedy);
  }
  return device.is_cuda() ? page_locked(memory) : memory;
}

void pass_moments(const std::vector<at::Tensor>& exp_avgs, const std::vector<at::Tensor>& exp_avg_sqs,
                  at::Device device, const std::function<void(const MomentPart&)>& update, int64_t part_elements) {
  const at::NoGradGuard no_grad;
  const std::vector<MomentPart> parts = parts_of(exp_avgs, exp_avg_sqs, part_elements);
  if (device.is_cpu()) {
    for (const MomentPart& part : parts) update(part);
    return;
  }
  int64_t most = 0;
  for (const MomentPart& part : parts) most = std::max(most, part.end - part.begin);
  Transfer transfer(device, most);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i == 0) transfer.fetch(0, parts[0]);
    if (i + 1 < parts.size()) transfer.fetch(i + 1, parts[i + 1]);
    update(transfer.take(i, parts[i]));
    transfer.bring_back(i, parts[i]);
  }
}

}  // namespace lighthouse
