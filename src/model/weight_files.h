// Which files of a folder of transformers hold its weights. Knows no torch.
#pragma once

#include <filesystem>
#include <vector>

namespace lighthouse {

/// model.safetensors, or the shards that model.safetensors.index.json names, sorted. Throws DamagedFile, naming the
/// index, when it is no such index or names what is not a file in its folder; std::system_error.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder);

}  // namespace lighthouse
