#include "train/disk_room.h"

#include <algorithm>
#include <stdexcept>

#include "lighthouse/check.h"
#include "train/checkpoint.h"
#include "train/text.h"

namespace lighthouse {

std::string check_room(const RunFolder& folder, int64_t checkpoint_bytes, const CheckpointConfig& config,
                       int64_t steps) {
  const auto there = static_cast<int64_t>(list_checkpoints(folder.path()).size());
  const int64_t saves = config.interval > 0 ? (steps + config.interval - 1) / config.interval : 1;
  const int64_t free_bytes = folder.free_bytes();
  const auto has_room_for = [&](int64_t copies) { return free_bytes >= (copies - there) * checkpoint_bytes; };
  const std::string disk =
      detail::concat("'", folder.path().string(), "': the disk has ", with_unit(static_cast<double>(free_bytes)),
                     "B left and a checkpoint takes ", with_unit(static_cast<double>(checkpoint_bytes)), "B");
  const int64_t least = std::min<int64_t>(2, there + saves);
  if (!has_room_for(least)) {
    throw std::runtime_error(detail::concat(
        disk, least == 2 ? "; a new one is written before the last is removed, so that two must fit" : "",
        "; free some space or give another logging.run_dir"));
  }
  if (has_room_for(std::min(config.keep + 1, there + saves))) return "";
  return detail::concat(
      disk, "; checkpoint.keep = ", config.keep, " needs room for ", config.keep + 1,
      ", one of them while it is written: older ones will be removed earlier, never the last good one");
}

}  // namespace lighthouse
