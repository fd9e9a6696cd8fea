#include "train/environment.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/headeronly/version.h>

#include "train/device.h"

namespace lighthouse {

Environment environment_on(at::Device device) {
  Environment now{device.str(), at::get_cpu_capability(), at::get_num_threads(), LIGHTHOUSE_VERSION, TORCH_VERSION, ""};
  if (!device.is_cuda()) return now;
  now.processor = device_name(device);
  const at::CUDAHooksInterface& cuda = at::detail::getCUDAHooks();
  if (cuda.hasCuDNN()) now.cudnn = std::to_string(cuda.versionRuntimeCuDNN());
  return now;
}

std::string changes(const Environment& before, const Environment& now) {
  std::string list;
  const auto compare = [&](const std::string& what, const std::string& then, const std::string& here) {
    if (then.empty() || then == here) return;
    list.append(list.empty() ? "" : ", ").append(what).append(here).append(" instead of ").append(then);
  };
  const auto threads = [](const Environment& of) { return of.threads == 0 ? "" : std::to_string(of.threads); };
  compare("device ", before.device, now.device);
  if (before.device == now.device) {
    compare("", before.processor, now.processor);
    if (before.threads != now.threads) compare("", threads(before), threads(now) + " threads");
    compare("cuDNN ", before.cudnn, now.cudnn);
  }
  compare("torch ", before.torch, now.torch);
  compare("lighthouse ", before.lighthouse, now.lighthouse);
  return list;
}

}  // namespace lighthouse
