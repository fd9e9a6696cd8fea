// Checkpoints: a folder of safetensors with a manifest, complete or absent.
//
//   RUN/checkpoints/step-00000200/   model.safetensors      parameters and buffers
//                                    optimizer.safetensors  AdamW moments
//                                    state.json             step, data position, fingerprint, configuration
//                                    manifest.json          size and checksum (XXH3-128) of every tensor, every file
//                                                           and itself; written last
//
// Of W > 1 ranks, each of which writes its files:
//
//   model-00001-of-00004.safetensors     whole weights, those of rank 0, ...; with model.safetensors.index.json and
//                                        config.json it is a model's folder as transformers loads it
//   optimizer-00001-of-00004.safetensors moments: NAME.exp_avg[0:16777216] is a range of their elements; the manifest
//                                        says which, and of what shape the whole is
//
// Any number of ranks reads either.
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
#include "model/tensor_range.h"
#include "train/checkpoint_ranks.h"

namespace lighthouse {

/// Tensors of the dtypes of tensor_file.h, on any device, any strides.
struct Checkpoint {
  int64_t step = 0;  ///< optimizer steps done
  NamedTensors model;
  std::vector<TensorRange> optimizer;
  std::string state_json;         ///< the trainer's own JSON object
  std::string model_config_json;  ///< config.json beside weights in shards; "": none. Not read back
};

/// Which of the weights, equal on all ranks, a rank writes: about as many bytes as the others.
NamedTensors weights_of_rank(const NamedTensors& model, const CheckpointRanks& ranks);

/// Writes RUN/checkpoints/step-XXXXXXXX. Of the older ones the newest whole ones stay, `keep` with the new one; later
/// steps, which a run that went back has yet to reach, are not touched. Throws std::system_error naming path and reason
/// (disk full, read-only, no such run folder); then nothing of the new checkpoint stays. A disk without room for it
/// costs older ones, the oldest first, but never the newest whole one; else they are untouched. Throws InvalidArgument
/// for keep < 1, step < 0, two tensors of one name, other dtypes, or a state that is not JSON.
///
/// Of several ranks all call it, each with its part: weights_of_rank, and ranges of moments that together are all of
/// them. `state_json` is that of rank 0. They write at the same time, without a word to each other until each has its
/// part on the disk (together, checkpoint_ranks.h); all must see one file system.
///
/// `ready`, where given, returns when the tensors are what is to be saved; what it throws is a failure to save.
///
/// Returns "", or what could not be done once the checkpoint was in place: an older one that stays.
///
/// Tensors are only read; contiguous CPU ones are not copied. A caller may hand over clones on another thread.
std::string save_checkpoint(const std::filesystem::path& run_dir, const Checkpoint& checkpoint, int64_t keep,
                            const CheckpointRanks& ranks = {}, const std::function<void()>& ready = {});

/// What is read, and checked by its content. Of the rest only the sizes of files are.
enum class CheckpointParts { kAll, kModel };  ///< kModel: no optimizer, two thirds of the bytes

/// The newest checkpoint whose every tensor matches its manifest. Damaged ones are reported through `warn` (file,
/// tensor, what is wrong) and passed over. One that goes while it is read, since the run that is in progress has saved
/// a newer one, is none of them: the list is made again. nullopt when the run has none; throws DamagedFile when it has
/// some but none is whole; std::system_error when one cannot be read, which says nothing of what is in it, so that no
/// older one is taken in its place.
std::optional<Checkpoint> load_latest_checkpoint(const std::filesystem::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 CheckpointParts parts = CheckpointParts::kAll);

/// The same by several ranks, all of which call it and go on from one checkpoint, whole for all of them. Each gets all
/// weights and, in their order, the ranges of moments that it asks for (`values` say how many elements), however they
/// lie in files. Those on the host are read into, so that they are there once, also where that throws: ranges, and
/// `weights` of the dtype and shape of what the checkpoint has under their names. Throws InvalidArgument naming a range
/// of a tensor that the checkpoint does not have, or has in another shape.
std::optional<Checkpoint> load_latest_checkpoint(const std::filesystem::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 const CheckpointRanks& ranks, const std::vector<TensorRange>& moments,
                                                 const NamedTensors& weights = {});

/// One checkpoint folder: new contiguous CPU tensors in the order in which they were saved, all checked before any is
/// returned. Throws DamagedFile naming file and tensor; std::system_error when a file cannot be read.
Checkpoint load_checkpoint(const std::filesystem::path& checkpoint_dir, CheckpointParts parts = CheckpointParts::kAll);

/// The run's checkpoint folders, newest first, unchecked.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_dir);

}  // namespace lighthouse
