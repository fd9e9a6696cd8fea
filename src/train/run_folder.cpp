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

namespace lighthouse {
namespace {

[[noreturn]] void throw_taken(const std::filesystem::path& folder, const FileDescriptor& lock) {
  std::array<char, 32> owner{};
  const ssize_t length = ::read(lock.get(), owner.data(), owner.size());
  const std::string process(owner.data(), length > 0 ? static_cast<size_t>(length) : 0);
  throw std::runtime_error("'" + folder.string() + "': process " + process +
                           " trains in this run folder; wait for it, or give another logging.run_dir");
}

FileDescriptor take_lock(const std::filesystem::path& folder, const std::function<void(const std::string&)>& warn) {
  const std::filesystem::path path = folder / kLockFile;
  FileDescriptor lock = open_file(path, O_RDWR | O_CREAT);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) throw_taken(folder, lock);
    if (!is_lacking(errno)) throw_system_error(errno, "cannot lock", path);
    if (warn) {
      warn("the file system of '" + folder.string() + "' has no locks (" + std::strerror(errno) +
           "): a second process that trains in this run folder would not be noticed");
    }
  }
  const std::string process = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), process.data(), process.size(), 0) < 0) {
    throw_system_error(errno, "cannot write to", path);
  }
  return lock;
}

}  // namespace

RunFolder::RunFolder(std::filesystem::path path, const std::function<void(const std::string&)>& warn)
    : path_(std::move(path)) {
  LIGHTHOUSE_CHECK(!path_.empty(), "logging.run_dir is empty; give the folder for metrics and checkpoints");
  create_folders_durably(path_);
  folder_ = open_file(path_, O_RDONLY | O_DIRECTORY);
  lock_ = take_lock(path_, warn);
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
