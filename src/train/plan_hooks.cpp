#include "train/plan_hooks.h"

#include "plan/advice.h"
#include "plan/flops.h"
#include "train/device_memory.h"
#include "train/text.h"

#if defined(LIGHTHOUSE_WITH_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace lighthouse {
namespace {

/// As the driver names it; "" on the CPU.
std::string device_name(at::Device device) {
#if defined(LIGHTHOUSE_WITH_CUDA)
  cudaDeviceProp properties{};
  if (device.is_cuda() && cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess) return properties.name;
#else
  static_cast<void>(device);
#endif
  return "";
}

}  // namespace

std::optional<double> peak_flops(const RunConfig& config, at::Device device) {
  return device_peak_flops(device_name(device), config.training.precision);
}

std::string out_of_memory_message(const RunConfig& config, at::Device device, int64_t step, const std::string& what) {
  std::string message = "out of memory in step " + std::to_string(step) +
                        ", which did not reach the weights: " + what.substr(0, what.find('\n'));
  const auto memory = device_memory(device);
  if (!memory) return message;
  const auto bytes = [](int64_t count) { return with_unit(static_cast<double>(count)) + "B"; };
  return message + "\n" + bytes(memory->allocated) + " are in tensors, " + bytes(memory->reserved) +
         " are reserved, the most in tensors was " + bytes(memory->peak_allocated) + "\n" +
         memory_advice(config, memory->available());
}

}  // namespace lighthouse
