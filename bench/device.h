// What the harness asks of the device that it measures on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/timing.h"

namespace lighthouse::bench {

struct GpuNames {
  std::string name, driver, cuda;
};

/// The sizes at which a device is measured for comparison.
struct Yardstick {
  int64_t copy_bytes, matmul_size;
  at::ScalarType matmul_dtype;
};

/// Calls recorded once, to be run again without the host's part in them.
class Recording {
 public:
  Recording() = default;
  virtual ~Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  virtual void replay() = 0;
};

/// Bytes of the allocator at one moment, and the most since reset_peak().
struct MemoryInUse {
  int64_t current, peak;
};

class Device {
 public:
  Device() = default;
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual at::Device torch_device() const = 0;
  /// Times a call from an idle device until all its work is done.
  virtual Stopwatch stopwatch() const = 0;
  /// Of the last cache before memory; 0: what is measured may find its inputs cached.
  virtual int64_t cache_bytes() const = 0;
  virtual Yardstick yardstick() const = 0;
  virtual GpuNames gpu_names() const = 0;

  /// Runs the calls while recording them; each must have run before. Null where the device records nothing.
  virtual std::unique_ptr<Recording> record(const std::vector<Function>& calls) const = 0;
  virtual std::optional<MemoryInUse> memory() const = 0;
  virtual void reset_peak() const = 0;
  /// Gives unused memory back, so that cases of different sizes do not fragment it.
  virtual void release_cache() const = 0;

  /// Copies of inputs of `bytes` to take turns with, so that none is still in the cache when its turn comes.
  int64_t num_copies(int64_t bytes) const;
};

/// "cpu" or "cuda", the current one. Throws InvalidArgument where there is none. On CUDA, work goes to a stream of its
/// own while the device lives.
std::unique_ptr<Device> open_device(const std::string& name);

/// Throws InvalidArgument in a build without CUDA.
std::unique_ptr<Device> open_cuda_device();

}  // namespace lighthouse::bench
