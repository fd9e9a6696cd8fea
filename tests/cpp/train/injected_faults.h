// Answers of the operating system, for tests: calls on files in place of the C library's, in this program.
#pragma once

namespace lighthouse::faults {

// Numbers of errors to answer with; 0: the call is made.
extern int flock_error, fsync_error, rename_error;  ///< rename: of folders
extern int open_error, pread_error;                 ///< of files in checkpoints, opened to be read
extern int sync_folder_error;                       ///< fsync of RUN/checkpoints
extern int aside_error;                             ///< rename of a folder that is to be removed
inline constexpr int kNoMemory = -1;                ///< of fsync: throws as what allocates there would

extern bool syncs;  ///< false: fsync does nothing, which takes less time

/// Asked before every call that changes files (open to write, mkdir, write, fsync, rename): the number of an error to
/// answer with, or 0. It may end the process. Null: not asked.
extern int (*before_change)();

void clear();

}  // namespace lighthouse::faults
