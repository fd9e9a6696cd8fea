// Errors about files that are not the caller's arguments.
#pragma once

#include <stdexcept>

namespace lighthouse {

/// A file whose content is not what its format or its manifest says. The message names the file and the part.
class DamagedFile : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace lighthouse
