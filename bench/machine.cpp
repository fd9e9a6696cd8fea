#include "bench/machine.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <torch/headeronly/version.h>

#include <fstream>

#include "bench/commit.h"
#include "bench/timing.h"

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

double copy_rate() {
  constexpr int64_t kBytes = 256 << 20;
  const at::Tensor source = at::ones({kBytes / 4});
  at::Tensor target = at::ones({kBytes / 4});
  const Timing timing = measure([&] { target.copy_(source); }, {0.3});
  return 2.0 * kBytes / timing.median_ms / 1e6;
}

double matmul_rate() {
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::ones({kSize, kSize});
  const Timing timing = measure([&] { at::mm(a, a); }, {0.5});
  return 2.0 * kSize * kSize * kSize / timing.median_ms / 1e6;
}

}  // namespace

Machine measure_machine() {
  return {LIGHTHOUSE_COMMIT, cpu_model(), TORCH_VERSION, at::get_num_threads(), copy_rate(), matmul_rate()};
}

}  // namespace lighthouse::bench
