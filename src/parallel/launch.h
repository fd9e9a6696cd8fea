// How a launcher says which of its processes this is. Knows no torch.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace lighthouse {

/// One process (rank) among `world_size` that one launcher started.
struct Launch {
  int64_t rank = 0, world_size = 1;              ///< 0 <= rank < world_size
  int64_t local_rank = 0, local_world_size = 1;  ///< on this machine; local_rank is the index of its GPU
  std::string address = "127.0.0.1";             ///< where rank 0, or the launcher, hosts the store
  uint16_t port = 29500;
  bool launcher_hosts_store = false;  ///< torchrun's agent does, else rank 0
  std::string attempt = "0";          ///< changes at each restart by the launcher, so that a store may outlive one
};

/// The value of an environment variable, or nullptr.
using GetVariable = std::function<const char*(const char* name)>;

/// From the variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), else of
/// srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS, …; the port follows from the job unless MASTER_PORT says it). nullopt
/// where neither has set any. Variables that are missing or contradict one another: InvalidArgument that names them.
std::optional<Launch> launch_from(const GetVariable& environment);
std::optional<Launch> launch_from_environment();

/// Whether the variables, which launch_from has refused, are those of another process than the first, and what is wrong
/// is not this one's own number: the first finds it too.
bool is_found_by_first(const GetVariable& environment);

/// The first host of a list as SLURM writes them: node[003-006,9],other -> node003.
std::string first_host(const std::string& nodes);

}  // namespace lighthouse
