// The folder of a run: RUN/config.toml, metrics.jsonl, events.out.tfevents.*, checkpoints/ and the lock of its trainer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "io/posix.h"

namespace lighthouse {

inline constexpr const char* kConfigFile = "config.toml";
inline constexpr const char* kMetricsFile = "metrics.jsonl";
inline constexpr const char* kLockFile = "lock";

/// Of several ranks that train one run.
enum class RunFolderUse {
  kOwn,   ///< the first rank, or the only one
  kShare  ///< the others: nothing is created, locked or removed
};

/// A run folder that no other process trains in while this object lives: flock on the folder itself, which nobody can
/// remove and make anew like RUN/lock, and on that, for file systems that lock no folders. The kernel lets go of them
/// when the process dies, however it dies.
class RunFolder {
 public:
  /// Creates the folder where it is missing, and removes what killed processes left in it. Throws std::runtime_error
  /// naming the other process when one trains there, or when RUN/lock is a symbolic link; std::system_error (path and
  /// errno text) when the folder cannot be created or written. Where the file system has no locks, `warn` is told that
  /// another process would not be noticed.
  explicit RunFolder(std::filesystem::path path, const std::function<void(const std::string&)>& warn = {},
                     RunFolderUse use = RunFolderUse::kOwn);

  const std::filesystem::path& path() const { return path_; }
  /// Throws std::runtime_error when the folder is no longer there under its name: moved or removed by somebody.
  void check_in_place() const;
  int64_t free_bytes() const;  ///< on its disk, for this user

 private:
  void take(const std::function<void(const std::string&)>& warn);

  std::filesystem::path path_;
  FileDescriptor folder_, lock_;
};

}  // namespace lighthouse
