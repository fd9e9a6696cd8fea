#include "train/device_memory.h"

#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdlib>

namespace lighthouse {

std::optional<DeviceMemory> device_memory(at::Device device) {
  if (device.is_cpu()) return std::nullopt;
  c10::DeviceAllocator* const allocator = c10::getDeviceAllocator(device.type());
  const auto stats = allocator->getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto [free, total] = allocator->getMemoryInfo(device.index());
  return DeviceMemory{stats.allocated_bytes[kAll].current, stats.allocated_bytes[kAll].peak,
                      stats.reserved_bytes[kAll].current, static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

void reset_peak_memory(at::Device device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
}

void expand_segments() {
  for (const char* of_user : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}) {
    if (std::getenv(of_user) != nullptr) return;
  }
  c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
}

bool segments_expand() { return c10::CachingAllocator::AcceleratorAllocatorConfig::use_expandable_segments(); }

}  // namespace lighthouse
