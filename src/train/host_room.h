// Whether the host has memory for what is to wait there.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace lighthouse {

/// "no 1.2GB of host memory WHAT (REASON); REMEDY"
std::runtime_error no_host_memory(int64_t bytes, const std::string& what, const std::string& reason,
                                  const std::string& remedy);

/// Throws that unless so much is free: to lock more in memory ends in a killed process where a control group limits it
/// (io/host_memory.h).
void check_host_room(int64_t bytes, const std::string& what, const std::string& remedy);

}  // namespace lighthouse
