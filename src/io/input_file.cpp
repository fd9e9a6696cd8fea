#include "io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/checksum.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

struct stat status_of(const FileDescriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_system_error(errno, "cannot read", path);
  return status;
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path)
    : path_(path), descriptor_(open_file(path, O_RDONLY | O_NONBLOCK)) {  // non-blocking: opening a pipe would wait
  const struct stat status = status_of(descriptor_, path_);
  if (!S_ISREG(status.st_mode)) throw DamagedFile(detail::concat("'", path.string(), "' is not a regular file"));
  size_ = status.st_size;
}

void InputFile::read(int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor_.get(), bytes.data(), bytes.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_system_error(errno, "cannot read", path_);
    if (got == 0) {
      throw DamagedFile(detail::concat("'", path_.string(), "' had ", size_, " bytes when it was opened and has ",
                                       status_of(descriptor_, path_).st_size, " now"));
    }
    bytes = bytes.subspan(static_cast<size_t>(got));
    offset += got;
  }
}

FileSummary summarize(const InputFile& file) {
  constexpr int64_t kPart = int64_t{8} << 20;
  std::vector<std::byte> part(static_cast<size_t>(std::min(kPart, file.size())));
  Checksum checksum;
  for (int64_t offset = 0; offset < file.size(); offset += kPart) {
    const auto bytes = std::span(part).first(static_cast<size_t>(std::min(kPart, file.size() - offset)));
    file.read(offset, bytes);
    checksum.update(bytes);
  }
  return {file.size(), checksum.hex()};
}

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::vector<std::byte> bytes(static_cast<size_t>(file.size()));
  file.read(0, bytes);
  return bytes;
}

std::string read_text_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void copy_regular_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  const InputFile file(from);  // or it says what is wrong
  std::error_code error;
  std::filesystem::copy_file(from, to, error);
  if (error) throw_system_error(error.value(), "cannot copy", from);
}

}  // namespace lighthouse
