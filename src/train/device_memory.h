// What the allocator of an accelerator says of its memory. On the CPU there is no such allocator.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

namespace lighthouse {

/// Bytes. "Allocated" is in tensors, "reserved" is that and what the allocator keeps for the next ones.
struct DeviceMemory {
  int64_t allocated = 0;
  int64_t peak_allocated = 0;  ///< since the last reset_peak_memory, or the start
  int64_t reserved = 0;
  int64_t free = 0;   ///< of the device, for any process
  int64_t total = 0;  ///< of the device

  int64_t available() const { return free + reserved; }  ///< to this process, were all its tensors gone
};

/// nullopt on the CPU.
std::optional<DeviceMemory> device_memory(at::Device device);
/// The peak begins anew with what is allocated now. Nothing on the CPU.
void reset_peak_memory(at::Device device);

/// Has the allocator grow its segments in place, so that little memory is lost between tensors, unless
/// PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF says how it is to work. Before the first tensor of the process.
void expand_segments();
/// Whether it does.
bool segments_expand();

}  // namespace lighthouse
