#include "bench/device.h"

#include <algorithm>

#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

class CpuDevice : public Device {
 public:
  at::Device torch_device() const override { return at::kCPU; }
  Stopwatch stopwatch() const override { return time_on_host; }
  int64_t cache_bytes() const override { return 0; }
  Yardstick yardstick() const override { return {256 << 20, 2048, at::kFloat}; }
  GpuNames gpu_names() const override { return {}; }
  std::unique_ptr<Recording> record(const std::vector<Function>& /*calls*/) const override { return nullptr; }
  std::optional<MemoryInUse> memory() const override { return std::nullopt; }
  void reset_peak() const override {}
  void release_cache() const override {}
};

}  // namespace

int64_t Device::num_copies(int64_t bytes) const {
  const int64_t evicts_all = 2 * cache_bytes();
  return bytes >= evicts_all ? 1 : evicts_all / std::max<int64_t>(bytes, 1) + 2;
}

std::unique_ptr<Device> open_device(const std::string& name) {
  if (name == "cpu") return std::make_unique<CpuDevice>();
  if (name == "cuda") return open_cuda_device();
  throw InvalidArgument("bench: device is '" + name + "'; it must be cpu or cuda");
}

}  // namespace lighthouse::bench
