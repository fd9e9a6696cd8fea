// Checkpoints: a folder of safetensors with a manifest, complete or absent.
//
//   RUN/checkpoints/step-00000200/   model.safetensors      parameters and buffers
//                                    optimizer.safetensors  AdamW moments
//                                    state.json             step, data position, fingerprint, configuration
//                                    manifest.json          size and checksum (XXH3-128) of every tensor and file;
//                                    written last
//
// A checkpoint is written to a temporary folder next to it, every file and folder is fsynced, then renamed: a crash at
// any moment leaves the earlier checkpoints whole and at most an abandoned temporary folder, which the next save
// removes. A checkpoint that is there already (a step run again) is called step-00000200.replaced for the moment
// between two renames; a crash in that moment leaves it under this name, and it is loaded from there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/named_tensors.h"

namespace lighthouse {

/// Tensors of the dtypes of tensor_file.h, on any device, any strides.
struct Checkpoint {
  int64_t step = 0;  ///< optimizer steps done
  NamedTensors model;
  NamedTensors optimizer;
  std::string state_json;  ///< the trainer's own JSON object
};

/// Writes RUN/checkpoints/step-XXXXXXXX. Of the older ones the newest whole ones stay, `keep` with the new one; later
/// steps, which a run that went back has yet to reach, are not touched. Throws std::system_error naming path and reason
/// (disk full, read-only, no such run folder); then nothing of the new checkpoint stays. A disk without room for it
/// costs older ones, the oldest first, but never the newest whole one; else they are untouched, unless the message says
/// that it was saved and only an older one could not be removed. Throws InvalidArgument for keep < 1, step < 0, two
/// tensors of one name, other dtypes, or a state that is not JSON.
///
/// Tensors are only read; contiguous CPU ones are not copied. A caller may hand over clones on another thread.
void save_checkpoint(const std::filesystem::path& run_dir, const Checkpoint& checkpoint, int64_t keep);

/// What is read, and checked by its content. Of the rest only the sizes of files are.
enum class CheckpointParts { kAll, kModel };  ///< kModel: no optimizer, two thirds of the bytes

/// The newest checkpoint whose every tensor matches its manifest. Damaged ones are reported through `warn` (file,
/// tensor, what is wrong) and passed over. One that goes while it is read, since the run that is in progress has saved
/// a newer one, is none of them: the list is made again. nullopt when the run has none; throws DamagedFile when it has
/// some but none is whole.
std::optional<Checkpoint> load_latest_checkpoint(const std::filesystem::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 CheckpointParts parts = CheckpointParts::kAll);

/// One checkpoint folder: new contiguous CPU tensors in the order in which they were saved, all checked before any is
/// returned. Throws DamagedFile naming file and tensor; std::system_error when a file cannot be read.
Checkpoint load_checkpoint(const std::filesystem::path& checkpoint_dir, CheckpointParts parts = CheckpointParts::kAll);

/// The run's checkpoint folders, newest first, unchecked.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_dir);

}  // namespace lighthouse
