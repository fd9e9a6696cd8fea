#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/cuda_info.h"
#include "cli/number_option.h"
#include "cli/plan_report.h"
#include "plan/advice.h"
#include "plan/flops.h"

namespace lighthouse::cli {
namespace {

// Offered for completion; with --memory every name will do.
constexpr const char* kDeviceNames = "{auto,cpu,h200,h100,b200,a100,l40s,l4}";

struct Options {
  std::string device = "auto";
  std::optional<double> memory_gib, tflops, bandwidth;
  std::optional<int64_t> world_size, nodes;
  bool json = false;
  std::unique_ptr<ConfigOptions> config;
};

PlanDevice this_cpu() {
  const int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return {"the CPU", false, bytes, std::nullopt};
}

/// The device that `lighthouse train` would take here.
PlanDevice device_here(DeviceChoice wanted) {
  if (wanted == DeviceChoice::kCpu) return this_cpu();
  const CudaInfo cuda = cuda_info();
  if (!cuda.devices.empty()) return {cuda.devices.front().name, true, cuda.devices.front().memory_bytes, std::nullopt};
  if (wanted == DeviceChoice::kAuto) return this_cpu();
  throw UsageError("training.device = \"cuda\": " + cuda.why_not + "; name the device to plan for, as --device h200");
}

PlanDevice device_by_name(const std::string& name, bool memory_given) {
  if (!memory_given && !device_peak_flops(name, Precision::kBf16)) {
    throw UsageError("--device " + name +
                     ": not known; one of auto, cpu, h200, h100, b200, a100, l40s, l4, or any GPU with its memory in "
                     "GiB, as --memory 80");
  }
  const DeviceProfile* profile = find_profile(name);
  return {name, true, profile == nullptr ? 0 : profile->memory_bytes, std::nullopt};
}

PlanDevice resolve(const Options& options, const RunConfig& config) {
  PlanDevice device = options.device == "auto"  ? device_here(config.training.device)
                      : options.device == "cpu" ? this_cpu()
                                                : device_by_name(options.device, options.memory_gib.has_value());
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  if (options.memory_gib) device.memory_bytes = static_cast<int64_t>(*options.memory_gib * kGiB);
  if (device.memory_bytes == 0) throw UsageError("--device " + device.name + ": give its memory too, as --memory 80");
  if (options.tflops.has_value() != options.bandwidth.has_value()) {
    throw UsageError("--device-tflops and --device-bandwidth: a time needs both");
  }
  constexpr double kTera = 1e12;
  const DeviceProfile* measured = find_profile(device.name);
  if (options.tflops) {
    device.profile =
        scaled_profile(device.name, device.memory_bytes, *options.tflops * kTera, *options.bandwidth * kTera);
  } else if (device.cuda && measured != nullptr) {
    device.profile = *measured;
  }
  return device;
}

/// How many ranks there are, and how they share the work: as the configuration says, or, where it says nothing, in the
/// fastest way that fits.
PlanRanks share_out(const Options& options, const PlanDevice& device, RunConfig& config) {
  ParallelConfig& parallel = config.parallel;
  const bool given = parallel.data > 0 || parallel.context > 1;
  PlanRanks ranks;
  ranks.world_size = options.world_size.value_or(std::max<int64_t>(parallel.data, 1) * parallel.context);
  const int64_t nodes = options.nodes.value_or((ranks.world_size + kNodeSize - 1) / kNodeSize);
  const std::string of_nodes = "--nodes " + std::to_string(nodes);
  if (ranks.world_size % nodes != 0) {
    throw UsageError(of_nodes + ": " + std::to_string(ranks.world_size) + " ranks do not divide into so many nodes");
  }
  ranks.node_size = ranks.world_size / nodes;
  if (given) {
    if (parallel.data == 0) parallel.data = std::max<int64_t>(ranks.world_size / parallel.context, 1);
    if (parallel.data * parallel.context != ranks.world_size) {
      throw UsageError("--world-size " + std::to_string(ranks.world_size) + ": parallel.data = " +
                       std::to_string(parallel.data) + " and parallel.context = " + std::to_string(parallel.context) +
                       " are " + std::to_string(parallel.data * parallel.context) + " ranks");
    }
    check_share(config);
  } else if (ranks.world_size > 1) {
    const DeviceProfile& ranking = device.profile ? *device.profile : device_profiles().front();
    ranks.shares = shares(config, ranks.world_size, device.memory_bytes, device.cuda, ranking, ranks.node_size);
    config = ranks.shares.front().config;
  }
  return ranks;
}

void run_plan(const Options& options) {
  RunConfig config = options.config->load();
  const PlanDevice device = resolve(options, config);
  const PlanRanks ranks = share_out(options, device, config);
  const nlohmann::ordered_json report = plan_report(config, device, ranks);
  if (options.json) {
    std::cout << report.dump(2) << '\n';
  } else {
    print_plan(report, std::cout);
  }
  if (report["fits"].get<bool>()) return;
  throw std::runtime_error("does not fit: it takes about " + memory_text(report["memory_bytes"].get<int64_t>()) +
                           " and " + device.name + " has " + memory_text(device.memory_bytes));
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "Predict memory and time of a configuration before it is launched");
  auto options = std::make_shared<Options>();
  options->config = std::make_unique<ConfigOptions>(*command);
  command
      ->add_option("--device", options->device,
                   "What to plan for: h200 or h100, with times; any other GPU with --memory, no times; cpu; auto: what "
                   "train would "
                   "take here")
      ->type_name(kDeviceNames)
      ->option_text("auto");
  constexpr NumberRange kOfDevices{.min = 0, .max = 1e6, .min_excluded = true};
  within(command->add_option("--memory", options->memory_gib, "Memory of the device in GiB; known of h200 and h100"),
         kOfDevices)
      ->option_text("GIB");
  within(command->add_option("--device-tflops", options->tflops,
                             "Dense bf16 TFLOP/s of the device's data sheet: with the bandwidth, a rough time"),
         kOfDevices)
      ->option_text("TFLOPS");
  within(command->add_option("--device-bandwidth", options->bandwidth, "Memory bandwidth of its data sheet in TB/s"),
         kOfDevices)
      ->option_text("TB/S");
  constexpr IntegerRange kOfMachines{1, 1 << 20};
  within(command->add_option(
             "--world-size", options->world_size,
             "GPUs that train together; they share the work as [parallel] says, or else in the fastest way that fits"),
         kOfMachines)
      ->option_text("W");
  within(command->add_option("--nodes", options->nodes, "Machines that these GPUs are in; default: one for each 8"),
         kOfMachines)
      ->option_text("M");
  command->add_flag("--json", options->json, "Print JSON; bytes and seconds");
  command->footer(
      "Exit codes: 0 it fits, 1 it does not, 2 wrong usage or configuration.\n\n"
      "Examples:\n"
      "  lighthouse plan --config configs/paper.toml --device h200\n"
      "  lighthouse plan --config configs/paper.toml --device a100 --memory 80 --json\n"
      "  lighthouse plan --config configs/paper.toml --device h100 --world-size 16 --nodes 2");
  command->callback([options] { run_plan(*options); });
}

}  // namespace lighthouse::cli
