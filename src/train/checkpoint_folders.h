// The checkpoint folders of a run: which there are, and which go. What is in them: checkpoint.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lighthouse {

/// A checkpoint folder's name, taken apart.
struct CheckpointFolder {
  int64_t step;
  bool replaced;  ///< waits under its second name (atomic_folder.h)
  std::filesystem::path path;
};

/// RUN/checkpoints
std::filesystem::path checkpoints_folder(const std::filesystem::path& run_dir);
/// RUN/checkpoints/step-00000200
std::filesystem::path checkpoint_folder(const std::filesystem::path& run_dir, int64_t step);
/// nullopt for other names.
std::optional<CheckpointFolder> parse_checkpoint_folder(const std::filesystem::path& path);

/// Newest first, unchecked; of one step that which was replaced last. Throws std::system_error when they cannot be
/// listed.
std::vector<CheckpointFolder> checkpoint_folders(const std::filesystem::path& run_dir);

/// Removes all up to `newest_step` but the newest whole ones, `keep` of them. Later steps, which a run that went back
/// has yet to reach, are not touched. Throws std::system_error.
void remove_old_checkpoints(const std::filesystem::path& run_dir, int64_t newest_step, int64_t keep);

/// Removes the oldest one before `new_step`, but never the newest whole one. False when there is none that may go.
bool make_room(const std::filesystem::path& run_dir, int64_t new_step);

/// Removes what killed processes left in the run's folders: temporaries, and what was replaced; where nothing has taken
/// its place, it has its name again. Throws nothing: what cannot be removed stays.
void remove_leftovers(const std::filesystem::path& run_dir) noexcept;

}  // namespace lighthouse
