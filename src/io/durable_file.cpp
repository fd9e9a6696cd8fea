#include "io/durable_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace lighthouse {

namespace {

/// Errors name the target: nobody knows the temporary.
Temporary temporary_beside(const std::filesystem::path& target) {
  try {
    return create_temporary_file(parent_folder(target));
  } catch (const std::system_error& error) {
    throw_system_error(error.code().value(), "cannot create", target);
  }
}

}  // namespace

DurableFile::DurableFile(std::filesystem::path target)
    : target_(std::move(target)), temporary_(temporary_beside(target_)) {}

DurableFile::~DurableFile() {
  if (!committed_) ::unlink(temporary_.path.c_str());
}

void DurableFile::write(std::span<const std::byte> bytes) {
  constexpr size_t kPart = size_t{8} << 20;  // checksum a part while it is in the cache
  while (!bytes.empty()) {
    const ssize_t written = ::write(temporary_.descriptor.get(), bytes.data(), std::min(bytes.size(), kPart));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_system_error(errno, "cannot write", target_);
    checksum_.update(bytes.first(static_cast<size_t>(written)));
    bytes_ += written;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

FileSummary DurableFile::commit() {
  sync_file(temporary_.descriptor, target_);
  // Network file systems may report a full disk only here.
  if (::close(temporary_.descriptor.release()) != 0) throw_system_error(errno, "cannot write", target_);
  if (::rename(temporary_.path.c_str(), target_.c_str()) != 0) throw_system_error(errno, "cannot replace", target_);
  committed_ = true;
  sync_folder(parent_folder(target_));
  return {bytes_, checksum_.hex()};
}

FileSummary write_file_durably(const std::filesystem::path& path, std::string_view text) {
  DurableFile file(path);
  file.write(std::as_bytes(std::span(text)));
  return file.commit();
}

}  // namespace lighthouse
