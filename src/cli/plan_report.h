// What `lighthouse plan` says of a configuration on a device.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/plan_device.h"
#include "config/run_config.h"
#include "plan/advice.h"

namespace lighthouse::cli {

/// The GPUs of a run, of which the configuration says how they share it.
struct PlanRanks {
  int64_t world_size = 1, node_size = kNodeSize;
  std::vector<Alternative> shares;  ///< the ways there were to choose from, this one first; empty: it was given
};

/// Memory and time of both stages, whether they fit, and what would: the object that --json prints. "time" is null, and
/// "why_no_time" says why, on a device without a profile; so is "host_memory_bytes", of the host for each rank, where
/// that is not known. Of several ranks, memory is that of the one that takes most, and "ranks" and the "traffic" and
/// "efficiency" of stages are there.
nlohmann::ordered_json plan_report(const RunConfig& config, const PlanDevice& device, const PlanRanks& ranks = {});

/// The same for people.
void print_plan(const nlohmann::ordered_json& report, std::ostream& out);

}  // namespace lighthouse::cli
