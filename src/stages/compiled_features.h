// The instruction sets beyond x86-64's first that the CPU stages were compiled for.
#pragma once

namespace lighthouse {

enum CompiledFeature : unsigned {
  kSse42 = 1U << 0,
  kAvx = 1U << 1,
  kAvx2 = 1U << 2,
  kFma = 1U << 3,
  kBmi2 = 1U << 4,
  kF16c = 1U << 5,
  kAvx512f = 1U << 6,
  kAvx512bw = 1U << 7,
  kAvx512dq = 1U << 8,
  kAvx512vl = 1U << 9,
};

/// Set of CompiledFeature: a constant, so that the call runs none of their instructions.
unsigned compiled_features();

}  // namespace lighthouse
