#include "train/device.h"

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "plan/flops.h"

#if defined(LIGHTHOUSE_WITH_CUDA)
#include <cuda_runtime_api.h>

#include "cuda/launch.h"
#endif

namespace lighthouse {
namespace {

#if defined(LIGHTHOUSE_WITH_CUDA)
/// A driver that is too old hides its GPUs: the CPU would be taken in silence.
void require_driver() {
  int driver = 0;
  int count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return;  // none is installed
  const cudaError_t status = cudaGetDeviceCount(&count);
  LIGHTHOUSE_CHECK(status != cudaErrorInsufficientDriver, "training.device: ", cudaGetErrorString(status),
                   cuda_remedy(status), ", or use cpu");
}

void require_gpu(int64_t index) {
  cudaDeviceProp gpu{};
  if (cudaGetDeviceProperties(&gpu, static_cast<int>(index)) != cudaSuccess) return;
  const std::string remedy = old_gpu_remedy(gpu.name, gpu.major, gpu.minor);
  LIGHTHOUSE_CHECK(remedy.empty(), "training.device: ", remedy);
}
#else
void require_driver() {}
void require_gpu(int64_t /*index*/) {}
#endif

}  // namespace

std::string device_name(at::Device device) {
#if defined(LIGHTHOUSE_WITH_CUDA)
  cudaDeviceProp properties{};
  if (device.is_cuda() && cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess) return properties.name;
#else
  static_cast<void>(device);
#endif
  return "";
}

at::Device resolve_device(DeviceChoice choice, int64_t local_rank) {
  if (choice == DeviceChoice::kCpu) return at::kCPU;
  require_driver();
  if (choice == DeviceChoice::kAuto && !at::hasCUDA()) return at::kCPU;
  LIGHTHOUSE_CHECK(at::hasCUDA(),
                   "training.device = \"cuda\": this build has no CUDA or the machine no GPU that it can use (see "
                   "lighthouse info); use cpu or auto");
  const int64_t num_gpus = static_cast<uint8_t>(at::detail::getCUDAHooks().deviceCount());
  LIGHTHOUSE_CHECK(num_gpus == 1 || local_rank < num_gpus, "process ", local_rank + 1,
                   " of this machine has no GPU: ", num_gpus, " are there; start as many processes as GPUs");
  const int64_t index = num_gpus == 1 ? 0 : local_rank;
  require_gpu(index);
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

void use_device(at::Device device) {
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
}

void open_libraries(at::Device device, at::ScalarType dtype) {
  if (!device.is_cuda()) return;
  const at::Tensor x = at::ones({128, 64}, at::TensorOptions(device).dtype(dtype)).set_requires_grad(true);
  const at::Tensor heads = at::mm(x, x.t()).view({1, 1, 128, 128});
  at::scaled_dot_product_attention(heads, heads, heads, std::nullopt, 0.0, /*is_causal=*/true).sum().backward();
}

at::ScalarType resolve_precision(Precision precision) {
  return precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
}

Execution resolve_execution(const RunConfig& config, int64_t local_rank) {
  const TrainingConfig& training = config.training;
  return {resolve_precision(training.precision),
          resolve_device(training.device, local_rank),
          training.recompute,
          offloaded_layers(config),
          training.recompute_layers,
          training.deterministic,
          training.offload_weights ? WeightPlace::kHost : WeightPlace::kDevice};
}

std::optional<double> peak_flops(const TrainingConfig& training, at::Device device) {
  return device_peak_flops(device_name(device), training.precision);
}

}  // namespace lighthouse
