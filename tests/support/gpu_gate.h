// Tests that need a GPU are skipped where there is none, unless one is promised.
#pragma once

#include <cstdlib>
#include <stdexcept>

namespace lighthouse::test_support {

/// `present`, whether a CUDA device is seen. Throws where none is and LIGHTHOUSE_REQUIRE_GPU is set, as by `make
/// gpu-test`: all skipped is not all passed.
inline bool gpu_gate(bool present) {
  if (!present && std::getenv("LIGHTHOUSE_REQUIRE_GPU") != nullptr) {
    throw std::runtime_error("no CUDA device is seen, and LIGHTHOUSE_REQUIRE_GPU is set");
  }
  return present;
}

}  // namespace lighthouse::test_support
