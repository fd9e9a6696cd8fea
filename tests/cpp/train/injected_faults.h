// Answers of the operating system, for tests: calls on files in place of the C library's, in this program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lighthouse::faults {

// Numbers of errors to answer with; 0: the call is made.
extern int flock_error, fsync_error, rename_error;  ///< rename: of folders
extern int open_error, pread_error;                 ///< of files in checkpoints, opened to be read
extern int sync_folder_error;                       ///< fsync of RUN/checkpoints
extern int aside_error;                             ///< rename of a folder that is to be removed
inline constexpr int kNoMemory = -1;                ///< of fsync: throws as what allocates there would

extern bool syncs;  ///< false: fsync does nothing, which takes less time

/// Asked before every call that changes files (open to write, mkdir, write, fsync, rename, unlink, rmdir): the number
/// of an error to answer with, or 0. It may end the process. Null: not asked.
extern int (*before_change)();

/// What such a call has done.
struct Change {
  enum class Kind { kCreated, kMadeFolder, kWritten, kSynced, kRenamed, kRemoved };
  Kind kind;
  std::filesystem::path path;
  std::filesystem::path to = {};  ///< kRenamed
  std::string bytes = {};         ///< kWritten
  int64_t offset = 0;             ///< kWritten
};
/// Told of every change, in the order in which they were made; of threads that make some at once, one waits for the
/// other. Null: nobody.
extern void (*after_change)(const Change& change);

void clear();

}  // namespace lighthouse::faults
