#include "parallel/launch.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

int64_t number(const char* name, std::string_view text, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  LIGHTHOUSE_CHECK(error == std::errc() && end == text.data() + text.size() && value >= least && value <= most,
                   "launch: the environment has ", name, " = '", text, "'; must be an integer from ", least, " to ",
                   most);
  return value;
}

int64_t required(const GetVariable& environment, const char* name, const char* launcher, int64_t least, int64_t most) {
  const char* text = environment(name);
  LIGHTHOUSE_CHECK(text != nullptr, "launch: ", launcher, " is set, but ", name,
                   " is not; start every process by one launcher (torchrun, srun), or unset ", launcher);
  return number(name, text, least, most);
}

int64_t optional(const GetVariable& environment, const char* name, int64_t otherwise, int64_t least, int64_t most) {
  const char* text = environment(name);
  return text == nullptr ? otherwise : number(name, text, least, most);
}

constexpr int64_t kMostRanks = int64_t{1} << 20;
constexpr int64_t kLastPort = std::numeric_limits<uint16_t>::max();

Launch from_torchrun(const GetVariable& environment) {
  Launch launch;
  const char* set = environment("RANK") != nullptr ? "RANK" : "WORLD_SIZE";
  launch.world_size = required(environment, "WORLD_SIZE", set, 1, kMostRanks);
  launch.rank = required(environment, "RANK", set, 0, launch.world_size - 1);
  launch.local_world_size = optional(environment, "LOCAL_WORLD_SIZE", launch.world_size, 1, launch.world_size);
  launch.local_rank =
      optional(environment, "LOCAL_RANK", launch.rank % launch.local_world_size, 0, launch.local_world_size - 1);
  const char* agent = environment("TORCHELASTIC_USE_AGENT_STORE");
  launch.launcher_hosts_store = agent != nullptr && std::string_view(agent) == "True";
  if (const char* attempt = environment("TORCHELASTIC_RESTART_COUNT")) launch.attempt = attempt;
  return launch;
}

/// Tasks of the first node in SLURM's list of counts: 8(x2),4 -> 8.
int64_t first_count(const char* name, std::string_view counts, int64_t most) {
  return number(name, counts.substr(0, counts.find_first_of("(,")), 1, most);
}

Launch from_slurm(const GetVariable& environment) {
  constexpr const char* kRank = "SLURM_PROCID";
  constexpr int64_t kFirstPort = 20000, kNumPorts = 10000;
  Launch launch;
  launch.world_size = required(environment, "SLURM_STEP_NUM_TASKS", kRank, 1, kMostRanks);
  launch.rank = required(environment, kRank, kRank, 0, launch.world_size - 1);
  launch.local_rank = required(environment, "SLURM_LOCALID", kRank, 0, launch.rank);
  launch.local_world_size = launch.world_size;
  if (const char* counts = environment("SLURM_STEP_TASKS_PER_NODE")) {
    launch.local_world_size = first_count("SLURM_STEP_TASKS_PER_NODE", counts, launch.world_size);
  }
  const int64_t job = optional(environment, "SLURM_JOB_ID", 0, 0, std::numeric_limits<int64_t>::max());
  launch.port = static_cast<uint16_t>(kFirstPort + job % kNumPorts);
  if (const char* nodes = environment("SLURM_STEP_NODELIST")) launch.address = first_host(nodes);
  if (const char* restart = environment("SLURM_RESTART_COUNT")) launch.attempt = restart;
  return launch;
}

}  // namespace

std::string first_host(const std::string& nodes) {
  const size_t end = nodes.find_first_of("[,");
  if (end == std::string::npos || nodes[end] == ',') return nodes.substr(0, end);
  const size_t last = nodes.find_first_of("-,]", end);
  return nodes.substr(0, end) + nodes.substr(end + 1, last - end - 1);
}

std::optional<Launch> launch_from(const GetVariable& environment) {
  Launch launch;
  if (environment("RANK") != nullptr || environment("WORLD_SIZE") != nullptr) {
    launch = from_torchrun(environment);
  } else if (environment("SLURM_STEP_NUM_TASKS") != nullptr) {
    launch = from_slurm(environment);
  } else {
    return std::nullopt;
  }
  if (const char* address = environment("MASTER_ADDR")) launch.address = address;
  launch.port = static_cast<uint16_t>(optional(environment, "MASTER_PORT", launch.port, 1, kLastPort));
  return launch;
}

std::optional<Launch> launch_from_environment() {
  return launch_from([](const char* name) -> const char* { return std::getenv(name); });
}

bool is_found_by_first(const GetVariable& environment) {
  const char* rank = environment("RANK");
  if (rank == nullptr) rank = environment("SLURM_PROCID");
  if (rank == nullptr) return false;
  const std::string_view digits(rank);
  const bool is_other = digits.find_first_not_of("0123456789") == std::string_view::npos &&
                        digits.find_first_not_of('0') != std::string_view::npos;
  if (!is_other) return false;
  const auto of_first = [&](const char* name) -> const char* {
    constexpr std::array<std::string_view, 4> kOwn = {"RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID"};
    const bool is_own = std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end();
    const char* value = environment(name);
    return is_own && value != nullptr ? "0" : value;
  };
  try {
    launch_from(of_first);
  } catch (const InvalidArgument&) {
    return true;
  }
  return false;
}

}  // namespace lighthouse
