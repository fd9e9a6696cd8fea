// Files to read from. They are never mapped: one that is cut short meanwhile, or on a disk that fails, is an exception
// and not a SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/durable_file.h"
#include "io/posix.h"

namespace lighthouse {

/// A regular file, open for reading.
class InputFile {
 public:
  /// Throws std::system_error (path and errno text), or DamagedFile when it is not a regular file.
  explicit InputFile(const std::filesystem::path& path);

  int64_t size() const { return size_; }  ///< in bytes, when it was opened

  /// Fills `bytes` from byte `offset` of the file on. Safe from several threads. Throws DamagedFile when the file ends
  /// before that, as it was cut short since it was opened; std::system_error.
  void read(int64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  FileDescriptor descriptor_;
  int64_t size_ = 0;
};

/// Size and checksum of the whole file. Throws as InputFile::read does.
FileSummary summarize(const InputFile& file);

/// The whole of a file. Throw as InputFile does.
std::vector<std::byte> read_file(const std::filesystem::path& path);
std::string read_text_file(const std::filesystem::path& path);

/// Copies a file; `to` must not exist. Throws DamagedFile when `from` is not a regular file, std::system_error.
void copy_regular_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace lighthouse
