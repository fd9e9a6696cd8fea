// The few system calls on files that the standard library lacks, with errors that name the path.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace lighthouse {

/// Prefix of temporary files and folders: written beside their target, renamed when complete.
inline constexpr const char* kTemporaryPrefix = ".lighthouse-tmp-";

/// An open file, closed with its owner.
class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor = -1) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileDescriptor();
  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

/// Throws std::system_error: "WHAT 'PATH': text of the error number".
[[noreturn]] void throw_system_error(int error, const std::string& what, const std::filesystem::path& path);

/// open(2), not inherited by child programs. Throws std::system_error.
FileDescriptor open_file(const std::filesystem::path& path, int flags, mode_t mode = 0666);

/// A file that this program keeps writing to, under a name that others may know; created when it is missing. It must be
/// a regular file, no symbolic link and under one name, or a folder from somebody else could have a file of the user's
/// written to: throws std::runtime_error that says so, else as open_file.
FileDescriptor open_own_file(const std::filesystem::path& path, int flags);

/// Whether an error says that nothing is there under a name, as opposed to what is there and cannot be read.
bool is_missing(const std::error_code& error);

/// Whether an error number says that a file system has no such operation: locks, or fsync of a folder.
bool is_lacking(int error);

/// fsync(2), where the file system has it. Throws std::system_error.
void sync_file(const FileDescriptor& file, const std::filesystem::path& path);
/// Makes the names in a folder durable: what was created, renamed or removed there.
void sync_folder(const std::filesystem::path& folder);

/// Room on the disk of `path` for this user, in bytes; the largest number where the file system does not say.
int64_t free_bytes(const std::filesystem::path& path);

/// The folder that holds `path`: "." for a bare name.
std::filesystem::path parent_folder(const std::filesystem::path& path);

/// Creates the folder and its missing parents, durably.
void create_folders_durably(const std::filesystem::path& folder);

/// A new empty file or folder in `parent`, named kTemporaryPrefix and a unique ending. The descriptor holds a lock
/// (flock) that ends with the process, by which remove_abandoned_temporaries tells living owners from dead ones.
struct Temporary {
  std::filesystem::path path;
  FileDescriptor descriptor;
};
Temporary create_temporary_file(const std::filesystem::path& parent);
Temporary create_temporary_folder(const std::filesystem::path& parent);

/// A folder that several processes fill: `path`, whose name begins with kTemporaryPrefix, made by the first of them.
/// They share the lock, so it is abandoned when all have died. What dead ones left in it is still there.
Temporary join_temporary_folder(const std::filesystem::path& path);

/// Removes temporaries in `parent` whose process has died. Never throws: what cannot be locked or removed stays.
void remove_abandoned_temporaries(const std::filesystem::path& parent) noexcept;

/// Removes a folder as a whole: it is renamed to a temporary first, where the file system can and has room for it, so
/// that a crash leaves no half of it behind. Of a symbolic link the link.
void remove_folder(const std::filesystem::path& folder);

}  // namespace lighthouse
