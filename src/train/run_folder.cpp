#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "lighthouse/check.h"
#include "train/checkpoint_folders.h"

namespace lighthouse {
namespace {

[[noreturn]] void throw_taken(const std::filesystem::path& folder, const FileDescriptor& lock) {
  std::array<char, 32> owner{};
  const ssize_t length = ::read(lock.get(), owner.data(), owner.size());
  const std::string number(owner.data(), length > 0 ? static_cast<size_t>(length) : 0);
  throw std::runtime_error("'" + folder.string() + "': " + (number.empty() ? "another process" : "process " + number) +
                           " trains in this run folder; wait for it, or give another logging.run_dir");
}

/// "" or why there is no lock: the file system has none.
std::string lock(const FileDescriptor& descriptor, const std::filesystem::path& folder, const FileDescriptor& owner) {
  if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) == 0) return "";
  if (errno == EWOULDBLOCK) throw_taken(folder, owner);
  // EBADF: NFS locks what is open for writing only, and a folder is not.
  if (!is_lacking(errno) && errno != EBADF) throw_system_error(errno, "cannot lock", folder);
  return std::strerror(errno);
}

}  // namespace

RunFolder::RunFolder(std::filesystem::path path, const std::function<void(const std::string&)>& warn, RunFolderUse use)
    : path_(std::move(path)) {
  LIGHTHOUSE_CHECK(!path_.empty(), "logging.run_dir is empty; give the folder for metrics and checkpoints");
  if (use == RunFolderUse::kOwn) create_folders_durably(path_);
  folder_ = open_file(path_, O_RDONLY | O_DIRECTORY);
  if (use == RunFolderUse::kOwn) take(warn);
}

void RunFolder::take(const std::function<void(const std::string&)>& warn) {
  lock_ = open_own_file(path_ / kLockFile, O_RDWR);
  lock(folder_, path_, lock_);
  const std::string lacking = lock(lock_, path_, lock_);
  if (!lacking.empty() && warn) {
    warn("the file system of '" + path_.string() + "' has no locks (" + lacking +
         "): a second process that trains in this run folder would not be noticed");
  }
  const std::string process = std::to_string(::getpid());
  if (::ftruncate(lock_.get(), 0) != 0 || ::pwrite(lock_.get(), process.data(), process.size(), 0) < 0) {
    throw_system_error(errno, "cannot write to", path_ / kLockFile);
  }
  remove_leftovers(path_);
}

void RunFolder::check_in_place() const {
  struct stat opened {};
  struct stat named {};
  if (::fstat(folder_.get(), &opened) == 0 && ::stat(path_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
      opened.st_dev == named.st_dev) {
    return;
  }
  throw std::runtime_error(
      "the run folder '" + path_.string() +
      "' was moved or removed while the run trained in it; put it back, or give the place where it "
      "is now as logging.run_dir");
}

int64_t RunFolder::free_bytes() const { return lighthouse::free_bytes(path_); }

}  // namespace lighthouse
