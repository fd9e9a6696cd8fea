#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "io/errors.h"
#include "io/posix.h"
#include "lighthouse/check.h"

namespace lighthouse {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const FileDescriptor file = open_file(path, O_RDONLY | O_NONBLOCK);  // non-blocking: opening a pipe would wait
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_system_error(errno, "cannot read", path);
  if (!S_ISREG(status.st_mode)) throw DamagedFile(detail::concat("'", path.string(), "' is not a regular file"));
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return;  // mmap(2) refuses to map nothing
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) throw_system_error(errno, "cannot map", path);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string read_text_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace lighthouse
