#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/local_launch.h"
#include "cli/number_option.h"

namespace lighthouse::cli {
namespace {

constexpr int64_t kMostProcesses = 1024;

struct LaunchArguments {
  int64_t count = 0;  ///< 0: not given
};

void run_launch(const LaunchArguments& options, const std::vector<std::string>& command) {
  if (options.count == 0) throw UsageError("give how many processes to start, as -n 2");
  if (command.empty() || command.front() != "train") {
    throw UsageError((command.empty() ? std::string("no command") : command.front() + ": not a command to launch") +
                     "; give one behind the options, as lighthouse launch -n 2 train --config my.toml");
  }
  const int exit_code = launch_here("/proc/self/exe", command, options.count);
  if (exit_code != 0) throw ExitCode{exit_code};
}

}  // namespace

void add_launch_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("launch", "Train by several processes of this machine");
  auto options = std::make_shared<LaunchArguments>();
  within(command->add_option("-n,--processes", options->count, "How many: one for each GPU, or parts of a CPU"),
         IntegerRange{1, kMostProcesses})
      ->option_text("N");
  command->prefix_command();
  command->footer(
      "Several machines: torchrun or srun start 'lighthouse train' on each (docs/training.md).\n\n"
      "Examples:\n"
      "  lighthouse launch -n 2 train --config my.toml --training.gradient_accumulation 2\n"
      "  lighthouse launch -n 8 train --config my.toml --parallel.data 2 --parallel.context 4");
  command->callback([options, command] { run_launch(*options, command->remaining()); });
}

}  // namespace lighthouse::cli
