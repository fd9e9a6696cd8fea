// The manifest of a checkpoint folder: what every file and tensor in it must be. Knows no torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/durable_file.h"
#include "io/safetensors.h"

namespace lighthouse {

struct TensorEntry {
  std::string name;
  std::string dtype;  ///< safetensors' name
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  std::string checksum;  ///< XXH3-128 of its data
};

struct FileEntry {
  std::string name;  ///< without a folder
  FileSummary summary;
  std::vector<TensorEntry> tensors;  ///< of a safetensors file, in the order in which they were saved
};

struct Manifest {
  int64_t step = 0;
  std::vector<FileEntry> files;
};

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr int64_t kManifestVersion = 1;

TensorEntry describe_tensor(const RawTensor& tensor);

/// Writes FOLDER/manifest.json; last of all files. Throws std::system_error.
void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

/// Throws DamagedFile when the manifest is missing (the folder is partial), malformed or of another version.
Manifest read_manifest(const std::filesystem::path& folder);

/// Every file is there with its size. Reads no content. Throws DamagedFile naming the file.
void check_file_sizes(const std::filesystem::path& folder, const Manifest& manifest);

/// Content against the manifest. Throw DamagedFile naming file and tensor.
void check_file(const std::filesystem::path& path, const FileSummary& found, const FileEntry& expected);
void check_tensor(const std::filesystem::path& path, const RawTensor& found, const TensorEntry& expected);

}  // namespace lighthouse
