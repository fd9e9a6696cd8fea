// Several processes of one program on this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lighthouse::cli {

/// Starts `count` processes of `program` with `arguments` and the variables that torchrun sets (parallel/launch.h), on
/// a free port, and returns when all have ended: 0 if all did well, else the exit code of the first that did not (1: a
/// signal ended it, which standard error is told). Signals that ask for an end go on to all. When one has failed the
/// others have some time to say what they know, then they are ended. Throws std::system_error.
int launch_here(const std::string& program, const std::vector<std::string>& arguments, int64_t count);

}  // namespace lighthouse::cli
