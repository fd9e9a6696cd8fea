// What the harnesses of this folder share: files with the input's bytes, which the readers open by their names.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace lighthouse::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// A file in memory, the same for all inputs of a process.
class InputInFile {
 public:
  explicit InputInFile(const char* name) : descriptor_(::memfd_create(name, 0)) {
    if (descriptor_ < 0) std::abort();
  }
  /// Its path, once it holds `bytes` and nothing else.
  std::string with(std::string_view bytes) const {
    if (::ftruncate(descriptor_, 0) != 0) std::abort();
    if (::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) std::abort();
    return "/proc/self/fd/" + std::to_string(descriptor_);
  }

 private:
  int descriptor_;
};

/// A folder in memory, which goes with the process.
class Folder {
 public:
  Folder() : path_("/dev/shm/lighthouse-fuzz-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::filesystem::path path() const { return path_; }
  /// A file with `bytes` and nothing else.
  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path() / name, std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

}  // namespace lighthouse::fuzz
