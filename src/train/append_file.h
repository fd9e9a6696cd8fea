// A log that grows by whole records.
#pragma once

#include <filesystem>
#include <string_view>

#include "io/posix.h"

namespace lighthouse {

/// A file to append to, created when it is missing. Each record reaches the kernel before append() returns: it survives
/// a kill, though not a power failure.
class AppendFile {
 public:
  /// Throws as open_own_file does: the file is not found through a symbolic link.
  explicit AppendFile(std::filesystem::path path);

  /// Appends all of the record, or nothing and throws std::system_error (disk full, ...).
  void append(std::string_view record);

 private:
  std::filesystem::path path_;
  FileDescriptor descriptor_;
};

}  // namespace lighthouse
