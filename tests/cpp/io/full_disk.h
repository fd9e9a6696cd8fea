// Disks that are full or read-only, for tests that must also work as root, whom permissions do not stop.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <string>

#include "cpp/io/temporary_folder.h"

namespace lighthouse {

inline constexpr const char* kNoMount = "mounting is not allowed here";

/// Mounts a file system of `bytes` on `folder`, seen by this process alone.
inline bool mount_small_disk(const std::filesystem::path& folder, size_t bytes) {
  if (::unshare(CLONE_NEWNS) != 0) {
    const std::string user = "0 " + std::to_string(::getuid()) + " 1";
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_bytes("/proc/self/uid_map", user);
  }
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
}

/// What `body` returns in a child process that has `folder` on a disk of `bytes`, or kNoMount.
inline std::string run_on_small_disk(const std::filesystem::path& folder, size_t bytes,
                                     const std::function<std::string()>& body) {
  return run_in_child([&] { return mount_small_disk(folder, bytes) ? body() : std::string(kNoMount); });
}

/// The same with a disk that `prepare` fills and that is then made read-only.
inline std::string run_on_read_only_disk(const std::filesystem::path& folder, const std::function<void()>& prepare,
                                         const std::function<std::string()>& body) {
  return run_on_small_disk(folder, size_t{1} << 24, [&] {
    prepare();
    if (::mount(nullptr, folder.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return std::string(kNoMount);
    return body();
  });
}

/// Files of this process end at `bytes` while one exists: needs no rights, fails with EFBIG in the middle of a write.
class SmallFiles {
 public:
  explicit SmallFiles(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    limited_ = ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
  }
  ~SmallFiles() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  SmallFiles(const SmallFiles&) = delete;
  SmallFiles& operator=(const SmallFiles&) = delete;

  bool limited() const { return limited_; }

 private:
  rlimit before_{};
  bool limited_ = false;
};

/// The same in a child process, as run_on_small_disk.
inline std::string run_with_small_files(size_t bytes, const std::function<std::string()>& body) {
  return run_in_child([&] {
    const SmallFiles limit(bytes);
    return limit.limited() ? body() : std::string("no limit");
  });
}

}  // namespace lighthouse
