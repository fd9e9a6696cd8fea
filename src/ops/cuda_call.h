// What the CUDA kernels of all operators need: the device and stream of a call, and its plan where kernels see it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cuda/launch.h"
#include "lighthouse/device_plan.h"
#include "ops/checks.h"

#ifdef LIGHTHOUSE_STABLE_ABI
#include "stable/cuda.h"
#else
#include "ops/aten_cuda.h"
#endif

namespace lighthouse::ops {

/// Makes the device of `like` current while it lives.
class CudaCall {
 public:
  explicit CudaCall(const Tensor& like);

  CudaStream stream() const { return stream_; }
  /// Scratch of the caching allocator; null for 0 elements. It may be used until the call goes, in stream order after.
  float* floats(int64_t elements);
  int32_t* integers(int64_t elements);
  /// Scratch that holds `values`.
  const int32_t* uploaded(const std::vector<int32_t>& values);
  /// The plan with its table of documents on the device.
  DevicePlan plan(const SequencePlan& plan);

 private:
  DeviceScope device_;
  CudaStream stream_;
  Tensor like_;
  std::vector<Tensor> scratch_;
};

/// Calls body() and restates CudaError and InvalidArgument: no type of ours crosses the dispatcher.
template <typename Body>
auto restate_cuda_errors(const Body& body) {
  try {
    return restate_errors(body);
  } catch (const CudaError& error) {
    LIGHTHOUSE_FAIL(error.what());
  }
}

}  // namespace lighthouse::ops
