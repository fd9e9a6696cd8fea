// What `lighthouse plan` says of a configuration on a device.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "config/run_config.h"
#include "plan/advice.h"
#include "plan/device_profile.h"

namespace lighthouse::cli {

struct PlanDevice {
  std::string name;
  bool cuda;
  int64_t memory_bytes;
  std::optional<DeviceProfile> profile;  ///< absent: no time is predicted
};

/// The GPUs of a run, of which the configuration says how they share it.
struct PlanRanks {
  int64_t world_size = 1, node_size = kNodeSize;
  std::vector<Alternative> shares;  ///< the ways there were to choose from, this one first; empty: it was given
};

/// Memory and time of both stages, whether they fit, and what would: the object that --json prints. "time" is null, and
/// "why_no_time" says why, on a device without a profile. Of several ranks, memory is that of the one that takes most,
/// and "ranks" and the "traffic" and "efficiency" of stages are there.
nlohmann::ordered_json plan_report(const RunConfig& config, const PlanDevice& device, const PlanRanks& ranks = {});

/// The same for people.
void print_plan(const nlohmann::ordered_json& report, std::ostream& out);

}  // namespace lighthouse::cli
