// What a call is lent by the library whose tensors it works on.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>

#include "calls/tensor.h"
#include "lighthouse/device_plan.h"
#include "lighthouse/parallel_for.h"

namespace lighthouse::calls {

/// Memory on the device of the arguments, which is current while the context lives.
class CallContext {
 public:
  /// The next result of the call: uninitialised, contiguous.
  TensorView result(std::initializer_list<int64_t> sizes, Element element) {
    return make_result({sizes.begin(), sizes.size()}, element);
  }
  /// Uninitialised scratch, null for 0 elements. It may be used until the call ends, in stream order after.
  float* floats(int64_t elements) { return static_cast<float*>(scratch(elements * 4)); }
  int32_t* integers(int64_t elements) { return static_cast<int32_t*>(scratch(elements * 4)); }
  void* scratch(int64_t bytes) { return bytes == 0 ? nullptr : make_scratch(bytes); }

  /// The same for as long as the owner lives.
  virtual std::shared_ptr<void> keep(int64_t bytes) = 0;
  virtual const ParallelFor& threads() = 0;
  virtual CudaStream stream() = 0;

  CallContext() = default;
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;
  virtual ~CallContext() = default;

 private:
  virtual TensorView make_result(std::span<const int64_t> sizes, Element element) = 0;
  virtual void* make_scratch(int64_t bytes) = 0;
};

}  // namespace lighthouse::calls
