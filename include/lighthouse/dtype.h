// Element types that the stages compute on.
#pragma once

#include <cstdint>

namespace lighthouse {

/// Element type of q, k, v, their rows and gradients. Sums run in fp32, for kFloat64 in fp64, and are rounded once.
enum class DType : std::uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16 };

}  // namespace lighthouse
