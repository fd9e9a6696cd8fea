// What is said where a machine's GPU or driver does not do. No GPU is needed.
#include "cuda/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lighthouse {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string error_of(cudaError_t status) {
  try {
    cuda_check(status, "launch", "gather.cu", 7);
  } catch (const CudaError& error) {
    return error.what();
  }
  return "";
}

TEST(CudaCheck, AGpuThatTheKernelsWereNotCompiledForIsNamed) {
  EXPECT_THAT(error_of(cudaErrorNoKernelImageForDevice),
              AllOf(HasSubstr("launch failed"), HasSubstr("not compiled for this GPU"),
                    HasSubstr("LIGHTHOUSE_CUDA_ARCHITECTURES"), HasSubstr("gather.cu:7")));
}

TEST(CudaCheck, ADriverThatIsTooOldIsNamedWithBothVersions) {
  EXPECT_THAT(error_of(cudaErrorInsufficientDriver),
              AllOf(HasSubstr("need one for CUDA " + std::to_string(CUDART_VERSION / 1000) + "."),
                    HasSubstr("update the driver")));
}

TEST(CudaCheck, AGpuThatIsTooOldIsNamed) {
  EXPECT_EQ(old_gpu_remedy("Tesla V100", 7, 0),
            "Tesla V100 has compute capability 7.0, and the kernels need 8.0 (A100, RTX 30) or newer: use the CPU");
  EXPECT_EQ(old_gpu_remedy("A100", 8, 0), "");
}

TEST(CudaCheck, OtherErrorsAreCudasOwn) {
  EXPECT_EQ(error_of(cudaSuccess), "");
  EXPECT_THAT(error_of(cudaErrorInvalidValue), AllOf(HasSubstr("invalid argument"), Not(HasSubstr("driver"))));
}

}  // namespace
}  // namespace lighthouse
