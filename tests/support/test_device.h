// The device that tests of several layers run on.
#pragma once

#include <ATen/Context.h>

#include <cstdlib>

#include "support/gpu_gate.h"

namespace lighthouse {

/// What LIGHTHOUSE_TEST_DEVICE names, or the CPU, without a look at whether it is there.
inline at::Device named_test_device() {
  const char* name = std::getenv("LIGHTHOUSE_TEST_DEVICE");
  return at::Device(name == nullptr ? "cpu" : name);
}

/// Where the tensors of the tests lie: the CPU, or what LIGHTHOUSE_TEST_DEVICE names (cuda). Ends the program with exit
/// code 77, which ctest counts as skipped, where there is no such device; throws there when one is required.
inline at::Device test_device() {
  static const at::Device device = [] {
    at::Device named = named_test_device();
    if (named.is_cuda() && !test_support::gpu_gate(at::hasCUDA())) test_support::skip_program();
    if (named.is_cuda() && !named.has_index()) named.set_index(0);  // as tensors there say
    return named;
  }();
  return device;
}

}  // namespace lighthouse
