#include "cli/plan_device.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/cuda_info.h"
#include "cli/number_option.h"
#include "io/host_memory.h"
#include "io/printable.h"
#include "plan/flops.h"

namespace lighthouse::cli {
namespace {

// Offered for completion; with --memory every name will do.
constexpr const char* kDeviceNames = "{auto,cpu,h200,h100,b200,a100,l40s,l4}";

int64_t memory_of_this_machine() {
  if (const auto memory = host_memory()) return memory->total;
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

PlanDevice this_cpu() { return {"the CPU", false, memory_of_this_machine(), std::nullopt, std::nullopt}; }

/// The device that `lighthouse train` would take here.
PlanDevice device_here(DeviceChoice wanted) {
  if (wanted == DeviceChoice::kCpu) return this_cpu();
  const CudaInfo cuda = cuda_info();
  if (!cuda.devices.empty()) {
    const auto& gpu = cuda.devices.front();
    return {gpu.name, true, gpu.memory_bytes, std::nullopt, memory_of_this_machine()};
  }
  if (wanted == DeviceChoice::kAuto) return this_cpu();
  throw UsageError("training.device = \"cuda\": " + cuda.why_not + "; name the device to plan for, as --device h200");
}

PlanDevice device_by_name(const std::string& name, bool memory_given) {
  if (!memory_given && !device_peak_flops(name, Precision::kBf16)) {
    throw UsageError("--device " + name +
                     ": not known; one of auto, cpu, h200, h100, b200, a100, l40s, l4, or any GPU with its memory in "
                     "GiB, as --memory 80");
  }
  const DeviceProfile* profile = find_profile(name);
  return {printable_name(name), true, profile == nullptr ? 0 : profile->memory_bytes, std::nullopt, std::nullopt};
}

}  // namespace

PlanDevice PlanDeviceOptions::resolve(DeviceChoice wanted) const {
  PlanDevice found = device == "auto"  ? device_here(wanted)
                     : device == "cpu" ? this_cpu()
                                       : device_by_name(device, memory_gib.has_value());
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  if (memory_gib) found.memory_bytes = static_cast<int64_t>(*memory_gib * kGiB);
  if (host_memory_gib && !found.cuda) {
    throw UsageError("--host-memory: is of the machine that a GPU is in; of the CPU give --memory");
  }
  if (host_memory_gib) found.host_bytes = static_cast<int64_t>(*host_memory_gib * kGiB);
  if (found.memory_bytes == 0) throw UsageError("--device " + found.name + ": give its memory too, as --memory 80");
  if (tflops.has_value() != bandwidth.has_value()) {
    throw UsageError("--device-tflops and --device-bandwidth: a time needs both");
  }
  constexpr double kTera = 1e12;
  const DeviceProfile* measured = find_profile(found.name);
  if (tflops) {
    found.profile = scaled_profile(found.name, found.memory_bytes, *tflops * kTera, *bandwidth * kTera);
  } else if (found.cuda && measured != nullptr) {
    found.profile = *measured;
  }
  return found;
}

void add_plan_device_options(CLI::App& command, PlanDeviceOptions& options) {
  command
      .add_option("--device", options.device,
                  "What to plan for: h200 or h100, with times; any other GPU with --memory, no times; cpu; auto: what "
                  "train would "
                  "take here")
      ->type_name(kDeviceNames)
      ->option_text("auto");
  constexpr NumberRange kOfDevices{.min = 0, .max = 1e6, .min_excluded = true};
  within(command.add_option("--memory", options.memory_gib, "Memory of the device in GiB; known of h200 and h100"),
         kOfDevices)
      ->option_text("GIB");
  within(command.add_option("--host-memory", options.host_memory_gib,
                            "Memory in GiB of the machine that the GPUs are in; known of this one"),
         kOfDevices)
      ->option_text("GIB");
  within(command.add_option("--device-tflops", options.tflops,
                            "Dense bf16 TFLOP/s of the device's data sheet: with the bandwidth, a rough time"),
         kOfDevices)
      ->option_text("TFLOPS");
  within(command.add_option("--device-bandwidth", options.bandwidth, "Memory bandwidth of its data sheet in TB/s"),
         kOfDevices)
      ->option_text("TB/S");
}

}  // namespace lighthouse::cli
