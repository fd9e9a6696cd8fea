// What a call is lent by the library whose tensors it works on.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>

#include "calls/tensor.h"
#include "lighthouse/cpu_features.h"
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

#ifdef LIGHTHOUSE_WITH_CUDA
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

/// The threads for a stage. Whoever runs one comes through here, so this is where a processor that cannot is told from
/// one that can: throwing while a library is loaded would end the program.
inline const ParallelFor& cpu_threads(CallContext& context) {
  static const bool checked = (require_cpu_features(), true);
  (void)checked;
  return context.threads();
}

/// on_cuda() or on_cpu(), where the tensors are. A build without CUDA has no kernels to link: checks have refused such
/// tensors.
template <typename OnCuda, typename OnCpu>
void run_on(const Device& device, const OnCuda& on_cuda, const OnCpu& on_cpu) {
  if constexpr (kWithCuda) {
    if (device.is_cuda()) return on_cuda();
  }
  on_cpu();
}

}  // namespace lighthouse::calls
