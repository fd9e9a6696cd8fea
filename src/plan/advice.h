// Which settings make a configuration fit its device.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/run_config.h"
#include "plan/device_profile.h"

namespace lighthouse {

/// A configuration that fits, and the keys in which it differs.
struct Alternative {
  std::vector<std::pair<std::string, std::string>> settings;  ///< as apply_overrides takes them
  RunConfig config;
  int64_t bytes = 0;   ///< run_bytes
  double seconds = 0;  ///< run_seconds over the steps, on the profile it was ranked by
};

/// Configurations that train the same model on the same batches within `device_bytes`, cheapest first: with more
/// recomputation, smaller micro-batches, then in bf16. Of each kind the one that computes least again; none that only
/// adds to another one here. Empty when none fits, or the
/// configuration does as it is. `profile` ranks them.
std::vector<Alternative> alternatives(const RunConfig& config, int64_t device_bytes, bool on_cuda,
                                      const DeviceProfile& profile);

/// The longest training.seq_len that fits with everything else as it is, a multiple of 1,024 (of 64 below that), or of
/// attention.span where a sequence is cut by it; 0 when the least of them does not fit.
int64_t largest_seq_len(const RunConfig& config, int64_t device_bytes, bool on_cuda);

/// "--training.recompute full --training.offload true"
std::string settings_text(const Alternative& alternative);

/// Of an out-of-memory error on a GPU of `device_bytes`, three lines without a last newline: the need and its moment,
/// what takes the memory, which settings fit.
std::string memory_advice(const RunConfig& config, int64_t device_bytes);

/// 1 GiB -> "1.0 GiB", 20 MiB -> "20 MiB"
std::string memory_text(int64_t bytes);

}  // namespace lighthouse
