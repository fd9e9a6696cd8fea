// Which settings make a configuration fit its device.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/run_config.h"
#include "plan/device_profile.h"
#include "plan/time.h"

namespace lighthouse {

/// Predictions are good to 10 %: what takes more than this share of a device may not fit it.
inline constexpr double kCloseShare = 0.9;

/// A configuration that fits, and the keys in which it differs.
struct Alternative {
  std::vector<std::pair<std::string, std::string>> settings;  ///< as apply_overrides takes them
  RunConfig config;
  int64_t bytes = 0;   ///< run_bytes
  double seconds = 0;  ///< run_seconds over the steps, on the profile it was ranked by
};

/// Configurations that train the same model on the same batches within `device_bytes`, cheapest first: with more
/// recomputation or offload, smaller micro-batches, then in bf16. Of each kind the one that computes least again; none
/// that only adds to another one here. Empty when none fits, or the configuration does as it is. `profile` ranks them.
std::vector<Alternative> alternatives(const RunConfig& config, int64_t device_bytes, bool on_cuda,
                                      const DeviceProfile& profile);

/// Configurations that fit a device but take more than `host_bytes` of the host a rank, with what makes them fit that
/// too: checkpoints written at once, then fewer kept inputs. Those that nothing makes fit are left out.
std::vector<Alternative> within_host(const std::vector<Alternative>& all, int64_t device_bytes, int64_t host_bytes,
                                     const DeviceProfile& profile);

/// Throws InvalidArgument unless parallel.data x parallel.context ranks can share the work of a configuration.
void check_share(const RunConfig& config);

/// Ways of `num_ranks` GPUs, in nodes of `node_size`, to train the same batches: parallel.data x parallel.context, and
/// for each the first way to keep less that fits `device_bytes`, or the one that keeps least. Those that fit come
/// first, by the time of a step. Throws InvalidArgument, saying why, where so many cannot share the work.
std::vector<Alternative> shares(const RunConfig& config, int64_t num_ranks, int64_t device_bytes, bool on_cuda,
                                const DeviceProfile& profile, int64_t node_size = kNodeSize);

/// The longest training.seq_len that fits with everything else as it is, a multiple of 1,024 (of 64 below that), or of
/// attention.span where a sequence is cut by it; 0 when the least of them does not fit.
int64_t largest_seq_len(const RunConfig& config, int64_t device_bytes, bool on_cuda);

/// "--training.recompute full --training.offload true"
std::string settings_text(const Alternative& alternative);

/// What a GPU has for a process for which it was not enough, in bytes.
struct DeviceRoom {
  int64_t available;             ///< were all tensors of this process gone
  int64_t others = 0;            ///< other processes', and what CUDA itself takes
  int64_t scattered = 0;         ///< the allocator's, between tensors when most was in them
  bool segments_expand = false;  ///< the allocator's, in place
};

/// Of an out-of-memory error, three lines without a last newline: the need and its moment, what takes the memory, which
/// settings fit.
std::string memory_advice(const RunConfig& config, const DeviceRoom& room);

/// 1 GiB -> "1.0 GiB", 20 MiB -> "20 MiB"
std::string memory_text(int64_t bytes);

}  // namespace lighthouse
