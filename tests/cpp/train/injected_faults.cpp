#include "cpp/train/injected_faults.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <new>

#include "io/posix.h"

namespace lighthouse::faults {
namespace fs = std::filesystem;

int flock_error = 0, fsync_error = 0, rename_error = 0;
int open_error = 0, pread_error = 0;
int sync_folder_error = 0;
int aside_error = 0;
bool syncs = true;
int (*before_change)() = nullptr;
void (*after_change)(const Change& change) = nullptr;

void clear() {
  flock_error = fsync_error = rename_error = open_error = pread_error = sync_folder_error = aside_error = 0;
  before_change = nullptr;
  after_change = nullptr;
}

namespace {

std::string path_of(int file) {
  std::error_code unknown;
  return fs::read_symlink("/proc/self/fd/" + std::to_string(file), unknown).string();
}

bool in_checkpoints(const std::string& path) { return path.find("/checkpoints/") != std::string::npos; }

bool is_temporary(const char* path) { return fs::path(path).filename().string().starts_with(kTemporaryPrefix); }

template <typename Result = int, typename Call>
Result made_or(int error, const Call& call) {
  if (error == 0) return static_cast<Result>(call());
  errno = error;
  return -1;
}

fs::path absolute(int folder, const char* path) {
  if (fs::path(path).is_absolute()) return path;
  return (folder == AT_FDCWD ? fs::current_path() : fs::path(path_of(folder))) / path;
}

std::mutex one_at_a_time;  // of all calls: one in `change` would be one for each kind of call

/// `what` is asked, where somebody is told, after the call.
template <typename Result = int, typename Call, typename What>
Result change(int error, const Call& call, const What& what) {
  if (error == 0 && before_change != nullptr) error = before_change();
  if (after_change == nullptr) return made_or<Result>(error, call);
  const std::lock_guard lock(one_at_a_time);
  const auto result = made_or<Result>(error, call);
  const int number = errno;
  if (result >= 0) after_change(what(result));
  errno = number;
  return result;
}

}  // namespace

extern "C" int flock(int file, int operation) noexcept {
  return made_or(flock_error, [&] { return ::syscall(SYS_flock, file, operation); });
}
extern "C" int fsync(int file) {
  if (fsync_error == kNoMemory) throw std::bad_alloc();
  const bool of_folder = sync_folder_error != 0 && path_of(file).ends_with("/checkpoints");
  return change(
      of_folder ? sync_folder_error : fsync_error, [&] { return syncs ? ::syscall(SYS_fsync, file) : 0; },
      [&](int) {
        return Change{Change::Kind::kSynced, path_of(file)};
      });
}
extern "C" int rename(const char* from, const char* to) noexcept {
  int error = fs::is_directory(from) ? rename_error : 0;
  if (aside_error != 0 && is_temporary(to) && !is_temporary(from)) error = aside_error;
  return change(
      error, [&] { return ::renameat(AT_FDCWD, from, AT_FDCWD, to); },
      [&](int) {
        return Change{Change::Kind::kRenamed, absolute(AT_FDCWD, from), absolute(AT_FDCWD, to)};
      });
}
extern "C" int mkdir(const char* path, mode_t mode) noexcept {
  return change(
      0, [&] { return ::mkdirat(AT_FDCWD, path, mode); },
      [&](int) {
        return Change{Change::Kind::kMadeFolder, absolute(AT_FDCWD, path)};
      });
}
extern "C" int unlinkat(int folder, const char* path, int flags) noexcept {
  return change(
      0, [&] { return ::syscall(SYS_unlinkat, folder, path, flags); },
      [&](int) {
        return Change{Change::Kind::kRemoved, absolute(folder, path)};
      });
}
extern "C" int unlink(const char* path) noexcept { return unlinkat(AT_FDCWD, path, 0); }
extern "C" int rmdir(const char* path) noexcept { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
extern "C" int remove(const char* path) noexcept {  // as fs::remove_all removes the folder itself
  return fs::is_directory(fs::symlink_status(path)) ? rmdir(path) : unlink(path);
}
extern "C" ssize_t write(int file, const void* bytes, size_t count) {
  return change<ssize_t>(
      0, [&] { return ::syscall(SYS_write, file, bytes, count); },
      [&](ssize_t written) {
        return Change{Change::Kind::kWritten,
                      path_of(file),
                      {},
                      {static_cast<const char*>(bytes), static_cast<size_t>(written)},
                      ::lseek(file, 0, SEEK_CUR) - written};
      });
}
extern "C" int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const auto mode = static_cast<mode_t>(va_arg(rest, int));
  va_end(rest);
  const auto call = [&] { return ::syscall(SYS_openat, AT_FDCWD, path, flags, mode); };
  if ((flags & O_CREAT) != 0) {
    return change(0, call, [&](int) { return Change{Change::Kind::kCreated, absolute(AT_FDCWD, path)}; });
  }
  const bool reads = (flags & (O_ACCMODE | O_DIRECTORY)) == O_RDONLY;
  return made_or(reads && in_checkpoints(path) ? open_error : 0, call);
}
extern "C" ssize_t pread(int file, void* bytes, size_t count, off_t offset) {
  const bool reads = pread_error != 0 && in_checkpoints(path_of(file));
  return made_or<ssize_t>(reads ? pread_error : 0, [&] { return ::syscall(SYS_pread64, file, bytes, count, offset); });
}

}  // namespace lighthouse::faults
