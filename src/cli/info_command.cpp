#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/attention_info.h"
#include "cli/commands.h"
#include "cli/cuda_info.h"
#include "config/schema.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

Json cuda_json(const CudaInfo& cuda) {
  Json devices = Json::array();
  for (const CudaDevice& device : cuda.devices) {
    devices.push_back(
        {{"name", device.name}, {"compute_capability", device.capability}, {"memory_bytes", device.memory_bytes}});
  }
  return {{"compiled", cuda.compiled},
          {"architectures", cuda.architectures},
          {"architectures_run_on_hardware", cuda.run_on},
          {"devices", devices},
          {"why_not", cuda.why_not}};
}

/// By dtype, the kernels of the first CUDA device, or else of the CPU.
Json attention_json(const CudaInfo& cuda) {
  Json kernels = Json::object();
  const c10::Device device = cuda.devices.empty() ? at::kCPU : at::kCUDA;
  for (const StockAttention& attention : stock_attention(device)) kernels[attention.dtype] = attention.by_kernel;
  return {{"what", "stock causal scaled_dot_product_attention, at the length of the gathered rows"},
          {"device", device.str()},
          {"kernels", kernels}};
}

Json presets_json() {
  Json presets = Json::array();
  for (const std::string& name : model_preset_names()) {
    const ModelConfig model = model_preset(name);
    presets.push_back({{"name", name},
                       {"parameters", num_parameters(model)},
                       {"dim", model.dim},
                       {"num_layers", model.num_layers},
                       {"num_heads", model.num_heads},
                       {"num_kv_heads", model.num_kv_heads},
                       {"head_dim", model.head_dim},
                       {"ffn_dim", model.ffn_dim},
                       {"vocab_size", model.vocab_size}});
  }
  return presets;
}

Json collect() {
  const CudaInfo cuda = cuda_info();
  return {{"lighthouse", LIGHTHOUSE_VERSION},
          {"torch", TORCH_VERSION},
          {"compiler", LIGHTHOUSE_COMPILER},
          {"build_type", LIGHTHOUSE_BUILD_TYPE},
          {"cpu",
           {{"torch_kernels", at::get_cpu_capability()},
            {"lighthouse_kernels", LIGHTHOUSE_KERNEL_ARCH},
            {"cores", std::thread::hardware_concurrency()},
            {"threads", at::get_num_threads()}}},
          {"cuda", cuda_json(cuda)},
          {"attention", attention_json(cuda)},
          {"model_presets", presets_json()}};
}

/// 8030261248 -> "8.03 B"
std::string short_count(int64_t count) {
  const bool billions = count >= 1'000'000'000;
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << static_cast<double>(count) / (billions ? 1e9 : 1e6)
       << (billions ? " B" : " M");
  return text.str();
}

void print_cuda(const Json& cuda) {
  for (const Json& device : cuda["devices"]) {
    const double gib = device["memory_bytes"].get<double>() / (1 << 30);
    std::cout << "CUDA        " << device["name"].get<std::string>() << ", compute capability "
              << device["compute_capability"].get<std::string>() << ", " << std::fixed << std::setprecision(1) << gib
              << " GiB\n";
  }
  if (cuda["compiled"].get<bool>()) {
    std::cout << "kernels     compiled for " << cuda["architectures"].get<std::string>()
              << "; run on hardware: " << cuda["architectures_run_on_hardware"].get<std::string>() << '\n';
  }
  if (cuda["devices"].empty()) std::cout << "CUDA        not used: " << cuda["why_not"].get<std::string>() << '\n';
}

void print_attention(const Json& attention) {
  std::cout << "attention   " << attention["what"].get<std::string>() << "; on "
            << attention["device"].get<std::string>() << ":\n";
  for (const auto& [dtype, kernels] : attention["kernels"].items()) {
    std::string text;
    for (const std::string kernel : kernels) text += (text.empty() ? "" : "; ") + kernel;
    std::cout << "  " << std::left << std::setw(10) << dtype << text << std::right << '\n';
  }
  std::cout << '\n';
}

void print(const Json& info) {
  const auto text = [&](const char* key) { return info[key].get<std::string>(); };
  const Json& cpu = info["cpu"];
  std::cout << "lighthouse  " << text("lighthouse") << " (" << text("compiler") << ", " << text("build_type") << ")\n"
            << "torch       " << text("torch") << '\n'
            << "CPU         " << cpu["cores"] << " cores, " << cpu["threads"] << " threads; torch's kernels "
            << cpu["torch_kernels"].get<std::string>() << ", ours " << cpu["lighthouse_kernels"].get<std::string>()
            << '\n';
  print_cuda(info["cuda"]);
  print_attention(info["attention"]);
  std::cout << "model.preset  parameters    dim  layers  heads (kv)  head_dim    ffn   vocab\n";
  for (const Json& preset : info["model_presets"]) {
    const auto number = [&](const char* key) { return preset[key].get<int64_t>(); };
    const std::string heads = std::to_string(number("num_heads")) + " (" + std::to_string(number("num_kv_heads")) + ")";
    std::cout << std::left << std::setw(12) << preset["name"].get<std::string>() << std::right << std::setw(12)
              << short_count(number("parameters")) << std::setw(7) << number("dim") << std::setw(8)
              << number("num_layers") << std::setw(12) << heads << std::setw(10) << number("head_dim") << std::setw(7)
              << number("ffn_dim") << std::setw(8) << number("vocab_size") << '\n';
  }
}

}  // namespace

void add_info_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("info", "Show versions, devices, operators and model presets");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->footer("Examples:\n  lighthouse info\n  lighthouse info --json");
  command->callback([json] {
    const Json info = collect();
    if (*json) {
      std::cout << info.dump(2) << '\n';
    } else {
      print(info);
    }
  });
}

}  // namespace lighthouse::cli
