// Tests that need a GPU are skipped where there is none, unless one is promised.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lighthouse::test_support {

/// Whether `needed` CUDA devices are among the `present` ones. Throws where they are not and LIGHTHOUSE_REQUIRE_GPU
/// promises so many, as `make gpu-test` does of one: all skipped is not all passed.
inline bool gpu_gate(int present, int needed = 1) {
  const char* promise = std::getenv("LIGHTHOUSE_REQUIRE_GPU");
  if (present < needed && promise != nullptr && std::strtol(promise, nullptr, 10) >= needed) {
    throw std::runtime_error("CUDA devices that are seen: " + std::to_string(present) + ", LIGHTHOUSE_REQUIRE_GPU is " +
                             promise);
  }
  return present >= needed;
}

/// Ends the program with the exit code that ctest counts as skipped.
[[noreturn]] inline void skip_program() {
  std::puts("skipped: no CUDA device");
  std::exit(77);
}

}  // namespace lighthouse::test_support
