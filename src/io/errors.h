// Errors about files that are not the caller's arguments.
#pragma once

#include <stdexcept>
#include <string>

#include "lighthouse/check.h"

namespace lighthouse {

/// A file whose content is not what its format or its manifest says. The message names the file and the part.
class DamagedFile : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// "source: what"
template <typename... Parts>
[[noreturn]] void throw_damaged(const std::string& source, const Parts&... what) {
  throw DamagedFile(detail::concat(source, ": ", what...));
}

}  // namespace lighthouse
