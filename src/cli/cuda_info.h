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
  bool compiled;              ///< this build has CUDA kernels
  std::string architectures;  ///< "80-real,90a-real": what they were compiled for, as CMAKE_CUDA_ARCHITECTURES says it
  std::string run_on;         ///< "90a": what code of this project was run for, on a GPU
  std::vector<CudaDevice> devices;
  std::string why_not;  ///< what is missing, when there is no device to use; else ""
};
CudaInfo cuda_info();

}  // namespace lighthouse::cli
