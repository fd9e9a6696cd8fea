#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <string>

#include "bench/device.h"
#include "cuda/launch.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

class Event {
 public:
  Event() { LIGHTHOUSE_CUDA_CHECK(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record() const { LIGHTHOUSE_CUDA_CHECK(cudaEventRecord(event_, c10::cuda::getCurrentCUDAStream())); }
  /// Waits for this event.
  double milliseconds_since(const Event& start) const {
    LIGHTHOUSE_CUDA_CHECK(cudaEventSynchronize(event_));
    float milliseconds = 0;
    LIGHTHOUSE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event_, event_));
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

double time_on_stream(const Function& function) {
  LIGHTHOUSE_CUDA_CHECK(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream()));
  const Event start;
  const Event end;
  start.record();
  function();
  end.record();
  return end.milliseconds_since(start);
}

class GraphRecording : public Recording {
 public:
  explicit GraphRecording(const std::vector<Function>& calls) {
    graph_.capture_begin();
    try {
      for (const Function& call : calls) call();
    } catch (...) {
      abandon();
      throw;
    }
    graph_.capture_end();
  }
  void replay() override { graph_.replay(); }

 private:
  /// Ends the capture of what failed, so that the stream can be used again.
  void abandon() {
    try {
      graph_.capture_end();
    } catch (const c10::Error&) {  // the first error says more
    }
  }

  at::cuda::CUDAGraph graph_;
};

/// The driver's version, which only NVML tells; it comes with the driver.
std::string driver_version() {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (library == nullptr) return "unknown";
  using Init = int (*)();
  using Version = int (*)(char*, unsigned);
  const auto init = reinterpret_cast<Init>(dlsym(library, "nvmlInit_v2"));
  const auto version = reinterpret_cast<Version>(dlsym(library, "nvmlSystemGetDriverVersion"));
  char text[96] = "unknown";
  if (init != nullptr && version != nullptr && init() == 0) version(text, sizeof(text));
  return text;
}

std::string runtime_version() {
  int version = 0;
  LIGHTHOUSE_CUDA_CHECK(cudaRuntimeGetVersion(&version));
  return std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
}

class CudaDevice : public Device {
 public:
  CudaDevice() : index_(c10::cuda::current_device()), stream_(c10::cuda::getStreamFromPool()) {
    LIGHTHOUSE_CUDA_CHECK(cudaGetDeviceProperties(&properties_, index_));
  }

  at::Device torch_device() const override { return {at::kCUDA, index_}; }
  Stopwatch stopwatch() const override { return time_on_stream; }
  int64_t cache_bytes() const override { return properties_.l2CacheSize; }
  Yardstick yardstick() const override { return {int64_t{2} << 30, 8192, at::kBFloat16}; }
  GpuNames gpu_names() const override { return {properties_.name, driver_version(), runtime_version()}; }

  std::unique_ptr<Recording> record(const std::vector<Function>& calls) const override {
    return std::make_unique<GraphRecording>(calls);
  }

  std::optional<MemoryInUse> memory() const override {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index_).allocated_bytes[kAll];
    return MemoryInUse{stats.current, stats.peak};
  }
  void reset_peak() const override { c10::cuda::CUDACachingAllocator::resetPeakStats(index_); }
  void release_cache() const override {
    LIGHTHOUSE_CUDA_CHECK(cudaDeviceSynchronize());
    c10::cuda::CUDACachingAllocator::emptyCache();
  }

 private:
  c10::DeviceIndex index_;
  c10::cuda::CUDAStreamGuard stream_;  // graphs are not captured on the default stream
  cudaDeviceProp properties_{};
};

}  // namespace

std::unique_ptr<Device> open_cuda_device() {
  LIGHTHOUSE_CHECK(c10::cuda::device_count() > 0,
                   "bench: device is 'cuda', but no CUDA device is visible; run nvidia-smi, or use --device cpu");
  return std::make_unique<CudaDevice>();
}

}  // namespace lighthouse::bench
