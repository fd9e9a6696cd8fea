// Memory that a piece of code takes, for tests.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "cpp/io/temporary_folder.h"

namespace lighthouse {

/// That readers of JSON may take beside the text.
inline constexpr int64_t kJsonMemory = int64_t{64} << 20;

/// Of this process, in bytes: "VmRSS", or "VmHWM" for the most it had.
inline int64_t process_memory(const std::string& which) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(which)) return std::stoll(line.substr(which.size() + 1)) * 1024;
  }
  return 0;
}

/// The most that `body` had beside what was there before, in bytes; 0 under the address sanitizer, which keeps what was
/// freed.
template <typename Body>
int64_t memory_taken_by(const Body& body) {
  const std::string taken = run_in_child([&] {
    const int64_t before = process_memory("VmRSS");
    body();
    return std::to_string(process_memory("VmHWM") - before);
  });
#ifdef __SANITIZE_ADDRESS__
  return 0;
#else
  return std::stoll(taken);
#endif
}

}  // namespace lighthouse
