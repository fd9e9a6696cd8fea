// Running a stage where its tensors are.
#pragma once

#include "calls/context.h"
#include "lighthouse/cpu_features.h"

namespace lighthouse::calls {

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
