// A first configuration for a model, a corpus, a length and a device: what fits by the formulas of this folder, and
// else what docs/tuning.md and docs/training.md say to begin with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/run_config.h"
#include "plan/device_profile.h"

namespace lighthouse {

struct StartingRequest {
  ModelConfig model;
  bool trained = false;        ///< training goes on from weights that there are
  int64_t seq_len = 0;         ///< tokens of a sequence
  int64_t corpus_tokens = 0;   ///< to train on
  int64_t device_bytes = 0;    ///< of each device
  bool on_cuda = false;        ///< else the CPU
  int64_t num_ranks = 1;       ///< devices that train together
  DeviceProfile profile = {};  ///< that ways which fit are ranked by

  std::optional<int64_t> host_bytes = {};  ///< of the host, for each of its devices; if known
};

struct StartingPoint {
  RunConfig config;
  std::vector<std::pair<std::string, std::string>> reasons;  ///< of every key that was chosen, {key, why}
  int64_t bytes = 0;                                         ///< run_bytes
  bool is_close = false;                                     ///< above kCloseShare (advice.h) of the device
};

/// Throws InvalidArgument where nothing fits, naming the longest sequence that would, and where so many ranks cannot
/// share the work.
StartingPoint starting_point(const StartingRequest& request);

}  // namespace lighthouse
