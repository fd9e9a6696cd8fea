#include "io/atomic_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <system_error>

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// Without a slash at its end, and where it leads as a symbolic link: to rename the link would move nothing.
fs::path place_of(const fs::path& path) {
  const fs::path place = path.has_filename() ? path : path.parent_path();
  if (!fs::is_symlink(fs::symlink_status(place))) return place;
  if (!fs::is_directory(place)) throw_system_error(ENOTDIR, "cannot replace", place);
  return fs::canonical(place);
}

Temporary temporary_for(const fs::path& target, Filling filling) {
  const fs::path parent = parent_folder(target);
  try {
    return filling == Filling::kAlone ? create_temporary_folder(parent)
                                      : join_temporary_folder(parent / (kTemporaryPrefix + target.filename().string()));
  } catch (const std::system_error& error) {  // nobody knows the temporary
    throw_system_error(error.code().value(), "cannot create folder", target);
  }
}

void sync_tree(const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_symlink()) continue;
    if (entry.is_directory()) sync_folder(entry.path());
    if (entry.is_regular_file()) sync_file(open_file(entry.path(), O_RDONLY), entry.path());
  }
  sync_folder(folder);
}

}  // namespace

AtomicFolder::AtomicFolder(const fs::path& target, Filling filling, Replaced replaced)
    : target_(place_of(target)), filling_(filling), replaced_(replaced), temporary_(temporary_for(target_, filling)) {}

AtomicFolder::~AtomicFolder() {
  if (committed_ || filling_ == Filling::kHelping) return;
  std::error_code error;  // what cannot be removed now is removed by remove_abandoned_temporaries
  fs::remove_all(temporary_.path, error);
}

void AtomicFolder::commit() {
  sync_tree(temporary_.path);
  const bool replaces = fs::exists(fs::symlink_status(target_));
  if (replaces) {
    if (!fs::is_directory(target_)) throw_system_error(ENOTDIR, "cannot replace", target_);
    if (replaced_ == Replaced::kHidden && exchange()) return;
    return replace();
  }
  if (std::rename(temporary_.path.c_str(), target_.c_str()) != 0) throw_system_error(errno, "cannot create", target_);
  committed_ = true;
  sync_folder(parent_folder(target_));
  const fs::path left = target_.string() + kReplacedSuffix;  // by a crash between two renames
  if (replaced_ == Replaced::kNamed && fs::exists(left)) remove_folder(left);
}

/// The two change places; false where the file system does not do that.
bool AtomicFolder::exchange() {
  if (::renameat2(AT_FDCWD, temporary_.path.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) return false;
  committed_ = true;
  sync_folder(parent_folder(target_));
  remove_folder(temporary_.path);
  return true;
}

void AtomicFolder::replace() {
  std::optional<Temporary> hidden;
  fs::path replaced = target_.string() + kReplacedSuffix;
  if (replaced_ == Replaced::kHidden) {
    hidden = create_temporary_folder(parent_folder(target_));  // renamed over, as it is empty
    replaced = hidden->path;
  } else if (fs::exists(replaced)) {
    remove_folder(replaced);  // left by a crash after the new folder was in place
  }
  if (std::rename(target_.c_str(), replaced.c_str()) != 0) {
    const int error = errno;
    if (hidden) ::rmdir(replaced.c_str());
    throw_system_error(error, "cannot replace", target_);
  }
  if (std::rename(temporary_.path.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    std::rename(replaced.c_str(), target_.c_str());
    throw_system_error(error, "cannot create", target_);
  }
  committed_ = true;
  sync_folder(parent_folder(target_));
  remove_folder(replaced);
}

}  // namespace lighthouse
