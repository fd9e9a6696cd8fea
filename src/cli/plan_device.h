// The device that `lighthouse plan` and `lighthouse init` plan for, which need not be there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "config/choices.h"
#include "plan/device_profile.h"

namespace CLI {
class App;
}

namespace lighthouse::cli {

struct PlanDevice {
  std::string name;
  bool cuda;
  int64_t memory_bytes;
  std::optional<DeviceProfile> profile;  ///< absent: no time is predicted
  std::optional<int64_t> host_bytes;  ///< of the machine that a GPU is in, if known; of the CPU its own memory is all

  /// Of the host, for each of so many ranks in nodes of `node_size`.
  std::optional<int64_t> host_share(int64_t num_ranks, int64_t node_size) const {
    return host_bytes ? std::optional(*host_bytes / std::min(num_ranks, node_size)) : std::nullopt;
  }
  /// The one that settings are ranked by: its own, or that of the device that was measured best.
  const DeviceProfile& ranking() const { return profile ? *profile : device_profiles().front(); }
};

struct PlanDeviceOptions {
  std::string device = "auto";
  std::optional<double> memory_gib, host_memory_gib, tflops, bandwidth;

  /// `wanted`: what `auto` stands for. Throws UsageError for a device that is not known, or of which too little is.
  PlanDevice resolve(DeviceChoice wanted) const;
};

/// --device, --memory, --host-memory, --device-tflops and --device-bandwidth.
void add_plan_device_options(CLI::App& command, PlanDeviceOptions& options);

}  // namespace lighthouse::cli
