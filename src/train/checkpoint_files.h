// The files of a checkpoint folder: their names, and how one rank writes its own and reads what it wants.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/manifest.h"
#include "train/checkpoint.h"

namespace lighthouse {

inline constexpr const char* kStateFile = "state.json";
// Of the names of files of tensors; ".safetensors" or "-00001-of-00004.safetensors" follows.
inline constexpr const char* kWeightsStem = "model";
inline constexpr const char* kMomentsStem = "optimizer";

/// Whether it is a file of tensors with this stem.
bool has_stem(const std::string& file, const std::string& stem);

/// Writes the weights and moments of a rank; what a manifest records of them.
std::vector<FileEntry> write_tensor_files(const std::filesystem::path& folder, const Checkpoint& part,
                                          const CheckpointRanks& ranks);

/// Writes what rank 0 adds to the files of all ranks: state.json and, for several, what makes it a model's folder.
std::vector<FileEntry> write_text_files(const std::filesystem::path& folder, const Checkpoint& part,
                                        const std::vector<FileEntry>& files, const CheckpointRanks& ranks);

/// What to read, and where to.
struct WantedTensors {
  bool moments = true;
  const std::vector<TensorRange>* ranges = nullptr;  ///< of moments; null: all of them, whole
  const NamedTensors* places = nullptr;              ///< of weights: those that fit, on the host, are read into
};

/// Reads a folder and checks what it reads; `ranks` share out the files that are read for their checksums alone.
Checkpoint read_checkpoint(const std::filesystem::path& folder, const WantedTensors& wanted,
                           const CheckpointRanks& ranks);

}  // namespace lighthouse
