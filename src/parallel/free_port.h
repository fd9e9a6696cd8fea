// A place for the ranks of one machine to meet. Knows no torch.
#pragma once

#include <cstdint>

namespace lighthouse {

/// A TCP port of this machine that nobody listens at. It lies below those that Linux gives to connections (from 32,768
/// on), so that none takes it before rank 0 does, not even that of a rank which looks for rank 0 already. Throws
/// std::system_error where there is none.
uint16_t free_port();

}  // namespace lighthouse
