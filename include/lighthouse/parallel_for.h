// How the CPU stages use several threads without knowing whose threads they are.
#pragma once

#include <cstdint>
#include <functional>

namespace lighthouse {

/// Calls body(begin, end) on disjoint ranges that cover [0, count), from any threads, and returns when all are done.
/// A range holds at least `grain` items unless count is smaller. The CPU counterpart of a CUDA stream: every CPU stage
/// takes one as its last argument. Results never depend on how the range is cut.
using ParallelFor =
    std::function<void(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body)>;

/// One range, on the calling thread.
inline void serial_for(int64_t count, int64_t /*grain*/, const std::function<void(int64_t, int64_t)>& body) {
  if (count > 0) body(0, count);
}

}  // namespace lighthouse
