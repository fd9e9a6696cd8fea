// The device that tests of several layers run on.
#pragma once

#include <ATen/Context.h>

#include <cstdio>
#include <cstdlib>

#include "support/gpu_gate.h"

namespace lighthouse {

/// Where the tensors of the tests lie: the CPU, or what LIGHTHOUSE_TEST_DEVICE names (cuda). Ends the program with exit
/// code 77, which ctest counts as skipped, where there is no such device; throws there when one is required.
inline at::Device test_device() {
  static const at::Device device = [] {
    const char* name = std::getenv("LIGHTHOUSE_TEST_DEVICE");
    at::Device named(name == nullptr ? "cpu" : name);
    if (named.is_cuda() && !test_support::gpu_gate(at::hasCUDA())) {
      std::puts("skipped: no CUDA device");
      std::exit(77);
    }
    if (named.is_cuda() && !named.has_index()) named.set_index(0);  // as tensors there say
    return named;
  }();
  return device;
}

}  // namespace lighthouse
