#include "train/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace lighthouse {

AppendFile::AppendFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(open_own_file(path_, O_WRONLY | O_APPEND)) {}

void AppendFile::append(std::string_view record) {
  const off_t end = ::lseek(descriptor_.get(), 0, SEEK_END);
  while (!record.empty()) {
    const ssize_t written = ::write(descriptor_.get(), record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = written < 0 ? errno : EIO;
      if (end >= 0 && ::ftruncate(descriptor_.get(), end) != 0) {
        throw_system_error(errno, "a record that could not be written whole stays in", path_);
      }
      throw_system_error(error, "cannot write to", path_);
    }
    record.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace lighthouse
