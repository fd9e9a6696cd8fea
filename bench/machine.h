// What a result was measured on, and how fast that is at the two things attention consists of.
#pragma once

#include <cstdint>
#include <string>

#include "bench/timing.h"

namespace lighthouse::bench {

class Device;

struct Machine {
  std::string commit;   ///< of this program; "-dirty" where the tree had changes
  std::string command;  ///< that is running, its program without folders
  std::string cpu;
  std::string torch;  ///< version
  int64_t threads;
  std::string gpu, driver, cuda;  ///< name and versions; empty where the device is the CPU
  double copy_gb_per_s;           ///< bytes read plus bytes written by Tensor::copy_, more of them than caches hold
  double matmul_gflop_per_s;      ///< at::mm: fp32 2048 x 2048 on the CPU, bf16 8192 x 8192 on CUDA
};

/// Takes about a second.
Machine measure_machine(const Device& device);

}  // namespace lighthouse::bench
