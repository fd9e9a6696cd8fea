// Before each test torch's allocator of the device gets memory in which every number is NaN, and every integer -1: what
// is read before it was written shows in the results. initcheck of compute-sanitizer would tell where, but takes what
// TMA stores, as cuBLAS and cuDNN do on Hopper, for memory that nobody wrote.
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace lighthouse::test_support {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

class NaNMemory : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo&) override {
    if (!at::hasCUDA()) return;
    at::globalContext().lazyInitDevice(at::kCUDA);
    allocator::emptyCache();
    size_t free = 0;
    size_t total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    // The allocator has a pool for what is at most 1 MiB and one for what is larger, whose blocks it divides.
    std::vector<size_t> sizes(128, size_t{1} << 20);
    sizes.push_back(std::min(free / 4, size_t{4} << 30));
    std::vector<void*> blocks;
    for (const size_t size : sizes) {
      blocks.push_back(allocator::raw_alloc(size));
      C10_CUDA_CHECK(cudaMemset(blocks.back(), 0xFF, size));
    }
    for (void* block : blocks) allocator::raw_delete(block);
  }
};

/// Where LIGHTHOUSE_TEST_MEMORY is nan, as ctest has it for tests on the device.
[[maybe_unused]] const bool is_asked_for = [] {
  const char* memory = std::getenv("LIGHTHOUSE_TEST_MEMORY");
  const bool asked = memory != nullptr && std::strcmp(memory, "nan") == 0;
  if (asked) testing::UnitTest::GetInstance()->listeners().Append(new NaNMemory);
  return asked;
}();

}  // namespace
}  // namespace lighthouse::test_support
