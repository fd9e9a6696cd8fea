// A ParallelFor on threads of its own, for tests that have no thread pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "lighthouse/parallel_for.h"

namespace lighthouse::test_support {

/// Cuts every range into up to `num_pieces` uneven pieces, runs each on a thread of its own, and throws what one of
/// them threw.
inline ParallelFor threaded_for(int64_t num_pieces) {
  return [num_pieces](int64_t count, int64_t /*grain*/, const std::function<void(int64_t, int64_t)>& body) {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::exception_ptr error;
    for (int64_t piece = 0; piece < num_pieces; ++piece) {
      // Squares: no two pieces are equally long.
      const int64_t begin = count * piece * piece / (num_pieces * num_pieces);
      const int64_t end = count * (piece + 1) * (piece + 1) / (num_pieces * num_pieces);
      if (begin == end) continue;
      threads.emplace_back([&, begin, end] {
        try {
          body(begin, end);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(mutex);
          error = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (error) std::rethrow_exception(error);
  };
}

}  // namespace lighthouse::test_support
