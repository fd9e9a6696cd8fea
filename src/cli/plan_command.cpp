#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/number_option.h"
#include "cli/plan_device.h"
#include "cli/plan_report.h"
#include "io/printable.h"
#include "plan/advice.h"

namespace lighthouse::cli {
namespace {

struct PlanArguments {
  PlanDeviceOptions device;
  std::optional<int64_t> world_size, nodes;
  bool json = false;
  std::unique_ptr<ConfigOptions> config;
};

/// How many ranks there are, and how they share the work: as the configuration says, or, where it says nothing, in the
/// fastest way that fits.
PlanRanks share_out(const PlanArguments& options, const PlanDevice& device, RunConfig& config) {
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
    ranks.shares =
        shares(config, ranks.world_size, device.memory_bytes, device.cuda, device.ranking(), ranks.node_size);
    config = ranks.shares.front().config;
  }
  return ranks;
}

void run_plan(const PlanArguments& options) {
  RunConfig config = options.config->load();
  const PlanDevice device = options.device.resolve(config.training.device);
  const PlanRanks ranks = share_out(options, device, config);
  const nlohmann::ordered_json report = plan_report(config, device, ranks);
  if (options.json) {
    std::cout << report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  } else {
    std::ostringstream text;
    print_plan(report, text);
    std::cout << printable(text.view());
  }
  if (report["fits"].get<bool>()) return;
  const auto takes = [](int64_t bytes) { return "does not fit: it takes about " + memory_text(bytes); };
  const auto bytes = report["memory_bytes"].get<int64_t>();
  if (bytes > device.memory_bytes) {
    throw std::runtime_error(takes(bytes) + " and " + device.name + " has " + memory_text(device.memory_bytes));
  }
  throw std::runtime_error(takes(report["host_bytes"].get<int64_t>()) + " of the host, which has " +
                           memory_text(report["host_memory_bytes"].get<int64_t>()) + " for each GPU");
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "Predict memory and time of a configuration before it is launched");
  auto options = std::make_shared<PlanArguments>();
  options->config = std::make_unique<ConfigOptions>(*command);
  add_plan_device_options(*command, options->device);
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
