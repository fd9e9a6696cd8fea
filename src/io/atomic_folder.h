// Folders that are there whole or not at all.
#pragma once

#include <filesystem>

#include "io/posix.h"

namespace lighthouse {

/// Name under which an existing folder waits while its replacement is renamed into place.
inline constexpr const char* kReplacedSuffix = ".replaced";

/// A folder filled under a temporary name beside `target`. commit() syncs everything in it and renames it; without
/// commit() nothing is left. Throws std::system_error: path and errno text.
///
/// An existing target is replaced with all that is in it: it becomes TARGET.replaced, the new folder becomes TARGET,
/// TARGET.replaced is removed. A crash between the two renames leaves TARGET.replaced alone, which readers may take for
/// TARGET; at every moment one of them is whole.
class AtomicFolder {
 public:
  explicit AtomicFolder(const std::filesystem::path& target);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_.path; }  ///< where to put the files
  void commit();

 private:
  std::filesystem::path target_;
  Temporary temporary_;
  bool committed_ = false;
};

}  // namespace lighthouse
