// Errors of allocators, in words that help.
#pragma once

#include <c10/core/Device.h>

#include <exception>
#include <optional>
#include <string>

#include "config/run_config.h"

namespace lighthouse {

/// What the allocator says, in one line, when `error` is that memory ran out, of the device or the host; nullopt for
/// other errors.
std::optional<std::string> out_of_memory_reason(const std::exception& error);

/// An error in words: that memory ran out, or its text, of torch's errors without the places in the program.
std::string words_of(const std::exception& error);

/// Lines for people: where memory ran out ("in step 12") and why, what is in use, what takes the memory and which
/// settings would fit. On the CPU, whose allocator does not count, only the first.
std::string out_of_memory_message(const RunConfig& config, at::Device device, const std::string& where,
                                  const std::string& reason);

}  // namespace lighthouse
