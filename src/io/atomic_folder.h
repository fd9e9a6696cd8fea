// Folders that are there whole or not at all.
#pragma once

#include <filesystem>

#include "io/posix.h"

namespace lighthouse {

/// Where an existing folder waits while its replacement is renamed into place.
enum class Replaced {
  kHidden,  ///< at the place of the temporary, or under the name of another
  kNamed    ///< as TARGET.replaced, for readers who know that name; what is there already is removed
};
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
/// An existing target is replaced with all that is in it. Replaced::kHidden: the two change places at once, where the
/// file system can, and the old one is removed. Else it becomes TARGET.replaced (or a temporary), the new folder
/// becomes TARGET, TARGET.replaced is removed. A crash between the two renames leaves TARGET.replaced alone, which
/// readers may take for TARGET; at every moment one of them is whole. A target that is a symbolic link to a folder
/// stands for that folder.
class AtomicFolder {
 public:
  explicit AtomicFolder(const std::filesystem::path& target, Filling filling = Filling::kAlone,
                        Replaced replaced = Replaced::kHidden);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_.path; }  ///< where to put the files
  void commit();
  /// After commit() threw: whether the new folder is in place all the same, whole, and what failed came after.
  bool committed() const { return committed_; }

 private:
  void replace();
  bool exchange();

  std::filesystem::path target_;
  Filling filling_;
  Replaced replaced_;
  Temporary temporary_;
  bool committed_ = false;
};

}  // namespace lighthouse
