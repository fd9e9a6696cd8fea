// What this machine and this build offer in CUDA devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lighthouse::cli {

struct CudaDevice {
  std::string name;
  std::string capability;  ///< "9.0"
  int64_t memory_bytes;
};

struct CudaInfo {
  bool compiled;  ///< this build has CUDA kernels
  std::vector<CudaDevice> devices;
  std::string why_not;  ///< what is missing, when there is no device to use; else ""
};
CudaInfo cuda_info();

}  // namespace lighthouse::cli
