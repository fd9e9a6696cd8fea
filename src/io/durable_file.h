// Files that are there whole or not at all, also after a crash or a power failure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "io/checksum.h"
#include "io/posix.h"

namespace lighthouse {

/// What a manifest records of a file.
struct FileSummary {
  int64_t bytes = 0;
  std::string checksum;  ///< XXH3-128, hexadecimal
};

/// A file written under a temporary name beside `target`, which commit() syncs and renames. Without commit() nothing is
/// left and an existing target is untouched. Throws std::system_error: path and errno text.
class DurableFile {
 public:
  explicit DurableFile(std::filesystem::path target);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(std::span<const std::byte> bytes);
  FileSummary commit();

 private:
  std::filesystem::path target_;
  Temporary temporary_;
  Checksum checksum_;
  int64_t bytes_ = 0;
  bool committed_ = false;
};

/// A small file in one call.
FileSummary write_file_durably(const std::filesystem::path& path, std::string_view text);

}  // namespace lighthouse
