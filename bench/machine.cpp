#include "bench/machine.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <torch/headeronly/version.h>

#include <filesystem>
#include <fstream>

#include "bench/commit.h"
#include "bench/device.h"

namespace lighthouse::bench {
namespace {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string command;
  for (std::string argument; std::getline(file, argument, '\0');) {
    command += command.empty() ? std::filesystem::path(argument).filename().string() : ' ' + argument;
  }
  return command;
}

double copy_rate(const Device& device) {
  const int64_t bytes = device.yardstick().copy_bytes;
  const at::TensorOptions options = at::TensorOptions(at::kByte).device(device.torch_device());
  const at::Tensor source = at::ones({bytes}, options);
  at::Tensor target = at::ones({bytes}, options);
  const Timing timing = measure([&] { target.copy_(source); }, {.seconds = 0.3}, device.stopwatch());
  return 2.0 * static_cast<double>(bytes) / timing.median_ms / 1e6;
}

double matmul_rate(const Device& device) {
  const auto [copy_bytes, size, dtype] = device.yardstick();
  // Products of constants take less power, and so run faster, than those of data.
  const at::Tensor a = at::randn({size, size}, at::TensorOptions(dtype).device(device.torch_device()));
  const Timing timing = measure([&] { at::mm(a, a); }, {.seconds = 0.5}, device.stopwatch());
  const auto edge = static_cast<double>(size);
  return 2 * edge * edge * edge / timing.median_ms / 1e6;
}

}  // namespace

Machine measure_machine(const Device& device) {
  const GpuNames gpu = device.gpu_names();
  return {LIGHTHOUSE_COMMIT, command_line(), cpu_model(), TORCH_VERSION,     at::get_num_threads(),
          gpu.name,          gpu.driver,     gpu.cuda,    copy_rate(device), matmul_rate(device)};
}

}  // namespace lighthouse::bench
