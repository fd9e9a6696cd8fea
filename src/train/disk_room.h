// Whether the disk of a run holds the checkpoints that will lie on it at the same time.
#pragma once

#include <cstdint>
#include <string>

#include "config/run_config.h"
#include "train/run_folder.h"

namespace lighthouse {

/// A checkpoint is written before an older one goes, so checkpoint.keep + 1 lie on the disk at the same time. Throws
/// std::runtime_error, saying what is needed, when the new one does not fit beside the last good one. Returns "" or a
/// warning when fewer than checkpoint.keep can stay. `steps`: those still to do.
std::string check_room(const RunFolder& folder, int64_t checkpoint_bytes, const CheckpointConfig& config,
                       int64_t steps);

}  // namespace lighthouse
