// What the last bits of a run depend on besides its configuration and its corpus.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace lighthouse {

/// Versions are "" where there is none of it.
struct Environment {
  std::string device;     ///< "cpu", "cuda:0"
  std::string processor;  ///< a GPU as its driver names it; on the CPU the instructions that torch uses, "AVX512"
  int64_t threads = 0;
  std::string lighthouse, torch, cudnn;  ///< versions; cudnn on CUDA only
};

/// Of this process, for a run on `device`.
Environment environment_on(at::Device device);

/// "4 threads instead of 8, torch 2.12.0 instead of 2.11.0"; "" when they give the same bits. What `before` does not
/// know is taken for the same, and on another device nothing is said of what goes with it.
std::string changes(const Environment& before, const Environment& now);

}  // namespace lighthouse
