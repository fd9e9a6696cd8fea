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
// removes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lighthouse {

struct Checkpoint {
  int64_t step = 0;  ///< optimizer steps done
  std::vector<std::pair<std::string, at::Tensor>> model;
  std::vector<std::pair<std::string, at::Tensor>> optimizer;
  std::string state_json;  ///< the trainer's own JSON object
};

/// Writes RUN/checkpoints/step-XXXXXXXX and keeps the newest `keep`. Throws std::system_error naming path and reason
/// (disk full, read-only); then nothing of the new checkpoint stays and the older ones are untouched.
void save_checkpoint(const std::filesystem::path& run_dir, const Checkpoint& checkpoint, int64_t keep);

/// The newest checkpoint whose every tensor matches its manifest. Damaged ones are reported through `warn` (file,
/// tensor, what is wrong) and passed over. nullopt when the run has none; throws DamagedFile when it has some but none
/// is whole.
std::optional<Checkpoint> load_latest_checkpoint(const std::filesystem::path& run_dir,
                                                 void (*warn)(const std::string&));

/// One checkpoint folder; throws DamagedFile naming file and tensor.
Checkpoint load_checkpoint(const std::filesystem::path& checkpoint_dir);

}  // namespace lighthouse
