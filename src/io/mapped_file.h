// A file read through memory mapping.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace lighthouse {

/// A regular file mapped read-only. The file must not be shortened while it is mapped: that is a SIGBUS, not an error.
class MappedFile {
 public:
  /// Throws std::system_error (path and errno text), or DamagedFile when it is not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }  ///< empty for an empty file

 private:
  std::span<const std::byte> bytes_;
};

/// The whole of a small file. Throws as MappedFile does.
std::string read_text_file(const std::filesystem::path& path);

}  // namespace lighthouse
