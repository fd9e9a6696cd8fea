// How what waits on the host passes through a device in an update. Knows no torch.
#pragma once

#include <cstdint>

namespace lighthouse {

/// So many elements are on the device at a time, thrice: on their way there, updated, and on their way back.
inline constexpr int64_t kTransferPartElements = int64_t{1} << 24;  // a multiple of 64, as pieces are (pieces.h)
inline constexpr int64_t kTransferPartsOnDevice = 3;

}  // namespace lighthouse
