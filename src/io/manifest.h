// The manifest of a checkpoint folder: what every file and tensor in it must be. Knows no torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/durable_file.h"
#include "io/safetensors.h"

namespace lighthouse {

/// What a tensor of a file is of a larger one, which lies in several: elements from `begin` on, in memory order.
struct RangeEntry {
  std::string name;            ///< of the whole tensor
  std::vector<int64_t> shape;  ///< of the whole tensor
  int64_t begin = 0;
};

struct TensorEntry {
  std::string name;
  std::string dtype;  ///< safetensors' name
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  std::string checksum;             ///< XXH3-128 of its data
  std::optional<RangeEntry> range;  ///< of a range; then shape is {elements}
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
inline constexpr int64_t kRangesVersion = 2;  ///< of a manifest that has ranges, which programs before it cannot read

TensorEntry describe_tensor(const RawTensor& tensor);

/// The manifest as a file holds it, with a checksum of itself (absent from those of earlier versions).
std::string manifest_text(const Manifest& manifest);
/// Reads it back. Throws DamagedFile, with `source` in front, when it is malformed, of another version, or not what was
/// written.
Manifest parse_manifest(const std::string& text, const std::string& source);

/// Writes FOLDER/manifest.json; last of all files. Throws std::system_error.
void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

/// Throws DamagedFile when the manifest is missing (the folder is partial), or not one, or lists ranges that are not
/// all of their tensors (check_ranges). Throws std::system_error when it cannot be read.
Manifest read_manifest(const std::filesystem::path& folder);

/// Ranges of one name are of one dtype and shape, and hold every element of it once. Throws DamagedFile naming the
/// tensor and the elements that are missing, or the files that both have them.
void check_ranges(const Manifest& manifest);

/// Every file is there with its size. Reads no content. Throws DamagedFile naming the file; std::system_error when that
/// cannot be seen.
void check_file_sizes(const std::filesystem::path& folder, const Manifest& manifest);

/// Content against the manifest. Throw DamagedFile naming file and tensor.
void check_file(const std::filesystem::path& path, const FileSummary& found, const FileEntry& expected);
void check_tensor(const std::filesystem::path& path, const RawTensor& found, const TensorEntry& expected);

}  // namespace lighthouse
