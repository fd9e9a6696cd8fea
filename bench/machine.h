// What a result was measured on, and how fast that is at the two things attention consists of.
#pragma once

#include <cstdint>
#include <string>

namespace lighthouse::bench {

struct Machine {
  std::string commit;  ///< of this program; "-dirty" where the tree had changes
  std::string cpu;
  std::string torch;  ///< version
  int64_t threads;
  double copy_gb_per_s;       ///< bytes read plus bytes written by Tensor::copy_ of 256 MiB
  double matmul_gflop_per_s;  ///< fp32 at::mm of 2048 x 2048
};

/// Takes about a second.
Machine measure_machine();

}  // namespace lighthouse::bench
