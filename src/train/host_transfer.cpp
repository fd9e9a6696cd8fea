#include "train/host_transfer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <optional>
#include <string>

#include "model/page_locked.h"
#include "train/host_room.h"
#include "train/out_of_memory.h"

namespace lighthouse {
namespace {

constexpr const char* kMoments = "for moments of the optimizer";

std::string remedy(const std::string& key) {
  return key +
         " = false keeps them on the device, and checkpoint.asynchronous = false needs no second copy of them here";
}
std::string remedy_of_moments() { return remedy("training.offload_optimizer"); }

int64_t bytes_of(int64_t num_elements) { return num_elements * static_cast<int64_t>(sizeof(float)); }

using Kinds = std::vector<std::vector<at::Tensor>>;

std::vector<TransferPart> parts_of(const Kinds& kinds, int64_t part_elements) {
  std::vector<TransferPart> parts;
  for (size_t index = 0; index < kinds.front().size(); ++index) {
    const int64_t size = kinds.front()[index].numel();
    for (int64_t begin = 0; begin < size; begin += part_elements) {
      TransferPart part{index, begin, std::min(begin + part_elements, size), {}};
      for (const std::vector<at::Tensor>& kind : kinds) part.values.push_back(part.of(kind));
      parts.push_back(std::move(part));
    }
  }
  return parts;
}

/// Parts on a device with streams.
class Transfer {
 public:
  Transfer(at::Device device, size_t num_kinds, int64_t part_elements)
      : device_(device),
        streams_(device.type()),
        in_(streams_.getStreamFromGlobalPool(device)),
        out_(streams_.getStreamFromGlobalPool(device)) {
    for (Slot& slot : slots_) {
      for (size_t kind = 0; kind < num_kinds; ++kind) {
        slot.memory.push_back(at::empty({part_elements}, at::TensorOptions(device).dtype(at::kFloat)));
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

  void fetch(size_t number, const TransferPart& host) {
    Slot& slot = slot_of(number);
    if (slot.left) slot.left->block(in_);
    copy(on_device(number, host), host, in_);
    record(slot.arrived, in_);
  }
  /// Usable on the current stream.
  TransferPart take(size_t number, const TransferPart& host) {
    slot_of(number).arrived->block(here());
    return on_device(number, host);
  }
  void bring_back(size_t number, const TransferPart& host) {
    wait(out_, here());
    copy(host, on_device(number, host), out_);
    record(slot_of(number).left, out_);
  }

 private:
  struct Slot {
    std::vector<at::Tensor> memory;  ///< [kinds]
    std::optional<c10::Event> arrived, left;
  };
  Slot& slot_of(size_t number) { return slots_[number % kTransferPartsOnDevice]; }
  TransferPart on_device(size_t number, const TransferPart& host) {
    TransferPart part{host.index, host.begin, host.end, {}};
    for (const at::Tensor& memory : slot_of(number).memory) {
      part.values.push_back(memory.slice(0, 0, host.end - host.begin));
    }
    return part;
  }
  static void copy(const TransferPart& to, const TransferPart& from, const c10::Stream& stream) {
    const c10::StreamGuard guard(stream);
    for (size_t kind = 0; kind < to.values.size(); ++kind) {
      to.values[kind].copy_(from.values[kind], /*non_blocking=*/true);
    }
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
  Slot slots_[kTransferPartsOnDevice];
};

}  // namespace

void check_moment_room(int64_t num_elements, at::Device device) {
  if (device.is_cuda()) check_host_room(2 * bytes_of(num_elements), kMoments, remedy_of_moments());
}

void check_weight_room(int64_t num_elements, at::Device device) {
  if (device.is_cuda()) check_host_room(bytes_of(num_elements), "for fp32 weights", remedy("training.offload_weights"));
}

at::Tensor host_zeros(at::IntArrayRef sizes, at::Device device) {
  try {
    return page_locked(at::zeros(sizes, at::kFloat), device);
  } catch (const std::exception& error) {
    throw no_host_memory(bytes_of(c10::multiply_integers(sizes)), kMoments, words_of(error), remedy_of_moments());
  }
}

void pass_through(const Kinds& kinds, at::Device device, const std::function<void(const TransferPart&)>& update,
                  int64_t part_elements) {
  const at::NoGradGuard no_grad;
  const std::vector<TransferPart> parts = parts_of(kinds, part_elements);
  if (device.is_cpu()) {
    for (const TransferPart& part : parts) update(part);
    return;
  }
  int64_t most = 0;
  for (const TransferPart& part : parts) most = std::max(most, part.end - part.begin);
  Transfer transfer(device, kinds.size(), most);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i == 0) transfer.fetch(0, parts[0]);
    if (i + 1 < parts.size()) transfer.fetch(i + 1, parts[i + 1]);
    update(transfer.take(i, parts[i]));
    transfer.bring_back(i, parts[i]);
  }
}

}  // namespace lighthouse
