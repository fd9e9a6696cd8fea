// Folders that are there whole or not at all.
#pragma once

#include <filesystem>

#include "io/posix.h"

namespace lighthouse {

/// Name under which an existing folder waits while its replacement is renamed into place.
inline constexpr const char* kReplacedSuffix = ".replaced";

/// Who fills a folder.
enum class Filling {
  kAlone,
  kLeading,  ///< with other processes, which name the same target: this one commits when all of them are done
  kHelping   ///< does not commit, and leaves the folder to the one that leads
};

/// A folder filled under a temporary name beside `target`. commit() syncs everything in it and renames it; without
/// commit() nothing is left. Throws std::system_error: path and errno text.
///
/// An existing target is replaced with all that is in it: it becomes TARGET.replaced, the new folder becomes TARGET,
/// TARGET.replaced is removed. A crash between the two renames leaves TARGET.replaced alone, which readers may take for
/// TARGET; at every moment one of them is whole. A target that is a symbolic link to a folder stands for that folder.
class AtomicFolder {
 public:
  explicit AtomicFolder(const std::filesystem::path& target, Filling filling = Filling::kAlone);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_.path; }  ///< where to put the files
  void commit();
  /// After commit() threw: whether the new folder is in place all the same, whole, and what failed came after.
  bool committed() const { return committed_; }

 private:
  std::filesystem::path target_;
  Filling filling_;
  Temporary temporary_;
  bool committed_ = false;
};

}  // namespace lighthouse
