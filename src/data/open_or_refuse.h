// Files of a corpus that cannot be opened.
#pragma once

#include <stdexcept>

#include "lighthouse/check.h"

namespace lighthouse {

/// What `open` returns. What cannot be opened (std::system_error, DamagedFile) is the caller's to put right: one kind
/// of error for all of it, InvalidArgument, with `remedy` at its end.
template <typename Open>
auto open_or_refuse(const char* remedy, const Open& open) {
  try {
    return open();
  } catch (const std::runtime_error& error) {
    LIGHTHOUSE_CHECK(false, "data: ", error.what(), "; ", remedy);
    throw;
  }
}

}  // namespace lighthouse
