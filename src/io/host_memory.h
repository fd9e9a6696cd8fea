// How much memory of the host this process may take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace lighthouse {

struct HostMemory {
  int64_t total;      ///< bytes
  int64_t available;  ///< of them, without swapping; what the system would give up of its cache of files counts
};

/// Of the machine, or of the control groups of Linux that the process is in, which containers and batch systems set,
/// whichever is less: beyond that no allocation fails, but the system kills the process. nullopt where the system does
/// not say. `root`: where proc/ and sys/ are, for tests.
std::optional<HostMemory> host_memory(const std::filesystem::path& root = "/");

}  // namespace lighthouse
