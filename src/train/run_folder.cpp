#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <utility>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

FileDescriptor take_lock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kLockFile;
  FileDescriptor lock = open_file(path, O_RDWR | O_CREAT);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_system_error(errno, "cannot lock", path);
    std::array<char, 32> owner{};
    const ssize_t length = ::read(lock.get(), owner.data(), owner.size());
    const std::string process(owner.data(), length > 0 ? static_cast<size_t>(length) : 0);
    throw std::runtime_error("'" + folder.string() + "': process " + process +
                             " trains in this run folder; wait for it, or give another logging.run_dir");
  }
  const std::string process = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), process.data(), process.size(), 0) < 0) {
    throw_system_error(errno, "cannot write to", path);
  }
  return lock;
}

}  // namespace

RunFolder::RunFolder(std::filesystem::path path) : path_(std::move(path)) {
  LIGHTHOUSE_CHECK(!path_.empty(), "logging.run_dir is empty; give the folder for metrics and checkpoints");
  create_folders_durably(path_);
  lock_ = take_lock(path_);
}

int64_t RunFolder::free_bytes() const { return static_cast<int64_t>(std::filesystem::space(path_).available); }

}  // namespace lighthouse
