#include "io/posix.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <limits>
#include <optional>
#include <stdexcept>
#include <system_error>

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

fs::path temporary_name(const fs::path& parent) {
  static std::atomic<int64_t> counter{0};
  return parent / (kTemporaryPrefix + std::to_string(::getpid()) + "-" + std::to_string(counter++));
}

/// Locks a temporary, LOCK_EX or LOCK_SH. False when a clean-up by another process removed it in between.
bool lock_temporary(const Temporary& temporary, int how) {
  // Where the file system has no locks the temporary is merely never taken for abandoned.
  while (::flock(temporary.descriptor.get(), how) != 0 && errno == EINTR) {
  }
  struct stat opened {};
  struct stat named {};
  return ::fstat(temporary.descriptor.get(), &opened) == 0 && ::stat(temporary.path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

/// Opens and locks a folder that is there; nothing when it was removed before it was locked.
std::optional<Temporary> lock_folder(const fs::path& path, int how) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0 && errno == ENOENT) return std::nullopt;
  if (descriptor < 0) throw_system_error(errno, "cannot open", path);
  Temporary temporary{path, FileDescriptor(descriptor)};
  if (!lock_temporary(temporary, how)) return std::nullopt;
  return temporary;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void throw_system_error(int error, const std::string& what, const fs::path& path) {
  throw std::system_error(error, std::generic_category(), what + " '" + path.string() + "'");
}

FileDescriptor open_file(const fs::path& path, int flags, mode_t mode) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw_system_error(errno, (flags & O_CREAT) != 0 ? "cannot create" : "cannot open", path);
  return FileDescriptor(descriptor);
}

FileDescriptor open_own_file(const fs::path& path, int flags) {
  std::error_code unknown;
  if (fs::is_symlink(fs::symlink_status(path, unknown))) {
    throw std::runtime_error("'" + path.string() +
                             "' is a symbolic link, and a run writes to files of its own only; remove the link");
  }
  FileDescriptor file = open_file(path, flags | O_CREAT | O_NOFOLLOW | O_NONBLOCK);  // a pipe would wait
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_system_error(errno, "cannot open", path);
  if (!S_ISREG(status.st_mode)) throw std::runtime_error("'" + path.string() + "' is not a regular file; remove it");
  if (status.st_nlink > 1) {
    throw std::runtime_error("'" + path.string() +
                             "' has another name too (a hard link), and a run writes to files of its own only; put a "
                             "copy of it in its place, or remove it");
  }
  return file;
}

bool is_missing(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
}

bool is_lacking(int error) { return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK; }

void sync_file(const FileDescriptor& file, const fs::path& path) {
  while (::fsync(file.get()) != 0) {
    if (is_lacking(errno)) return;  // folders on some network file systems
    if (errno != EINTR) throw_system_error(errno, "cannot sync", path);
  }
}

void sync_folder(const fs::path& folder) { sync_file(open_file(folder, O_RDONLY | O_DIRECTORY), folder); }

int64_t free_bytes(const fs::path& path) {
  std::error_code unknown;
  const fs::space_info space = fs::space(path, unknown);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (unknown || space.capacity == 0 || space.available > uintmax_t{kMost}) return kMost;
  return static_cast<int64_t>(space.available);
}

fs::path parent_folder(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void create_folders_durably(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (!folder.has_filename()) return create_folders_durably(folder.parent_path());
  const fs::path parent = parent_folder(folder);
  create_folders_durably(parent);
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) throw_system_error(errno, "cannot create folder", folder);
  if (!fs::is_directory(folder, error)) throw_system_error(ENOTDIR, "cannot create folder", folder);
  sync_folder(parent);
}

Temporary create_temporary_file(const fs::path& parent) {
  for (;;) {
    fs::path path = temporary_name(parent);
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0 && (errno == EEXIST || errno == EINTR)) continue;
    if (descriptor < 0) throw_system_error(errno, "cannot create a file in", parent);
    Temporary temporary{std::move(path), FileDescriptor(descriptor)};
    if (lock_temporary(temporary, LOCK_EX)) return temporary;
  }
}

Temporary create_temporary_folder(const fs::path& parent) {
  for (;;) {
    fs::path path = temporary_name(parent);
    if (::mkdir(path.c_str(), 0777) != 0) {
      if (errno == EEXIST) continue;
      throw_system_error(errno, "cannot create a folder in", parent);
    }
    if (auto temporary = lock_folder(path, LOCK_EX)) return std::move(*temporary);
  }
}

Temporary join_temporary_folder(const fs::path& path) {
  for (;;) {
    if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) throw_system_error(errno, "cannot create folder", path);
    if (auto temporary = lock_folder(path, LOCK_SH)) return std::move(*temporary);
  }
}

void remove_abandoned_temporaries(const fs::path& parent) noexcept {
  try {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
      if (!entry.path().filename().string().starts_with(kTemporaryPrefix)) continue;
      const FileDescriptor lock(::open(entry.path().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (lock.get() >= 0 && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), error);
    }
  } catch (const std::exception&) {  // leftovers cost space only; the caller's own work matters more
    return;
  }
}

void remove_folder(const fs::path& folder) {
  fs::path moved;
  do {
    moved = temporary_name(parent_folder(folder));
  } while (fs::exists(fs::symlink_status(moved)));
  if (::rename(folder.c_str(), moved.c_str()) != 0) {
    // The folders of an overlay's lower layer do not move; a full disk may have no room for a name.
    if (errno != EXDEV && errno != ENOSPC && errno != EDQUOT) throw_system_error(errno, "cannot remove", folder);
    moved = folder;
  }
  std::error_code error;
  fs::remove_all(moved, error);
  if (error) throw_system_error(error.value(), "cannot remove", folder);
}

}  // namespace lighthouse
