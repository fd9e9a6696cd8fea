#include "cli/usage.h"

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "config/schema.h"

namespace lighthouse::cli {
namespace {

constexpr int kHelpColumn = 44;

/// The innermost command that was read.
const CLI::App& parsed_command(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) names.push_back(option->get_name());
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* subcommand : command.get_subcommands({})) names.push_back(subcommand->get_name());
  return names;
}

std::string nearest_option(const CLI::App& command, const std::string& given) {
  std::string nearest = nearest_name(given, option_names(command));
  if (!nearest.empty()) return nearest;
  const std::string key = nearest_key(given.substr(given.find_first_not_of('-')));
  return !key.empty() && command.get_option_no_throw("--" + key) != nullptr ? "--" + key : "";
}

std::string unknown_argument(const CLI::App& command, const std::string& argument) {
  const bool option = argument.size() > 2 && argument.starts_with("--");
  const bool known = option && command.get_option_no_throw(argument) != nullptr;
  if (known) return argument + ": stands behind --, which ends the options; leave the -- out";
  if (option) return argument + ": unknown option" + did_you_mean(nearest_option(command, argument));
  if (argument.starts_with("-")) return argument + ": unknown option";
  const std::vector<std::string> names = subcommand_names(command);
  if (names.empty()) return argument + ": unexpected argument";
  return argument + ": unknown command" + did_you_mean(nearest_name(argument, names));
}

}  // namespace

std::unique_ptr<CLI::App> make_app() {
  auto app = std::make_unique<CLI::App>(
      "Lighthouse Attention: trains long-context decoders with selected attention first, dense attention after.",
      "lighthouse");
  app->get_formatter()->column_width(kHelpColumn);
  app->get_formatter()->label("SUBCOMMAND", "COMMAND");
  app->set_version_flag("--version", "lighthouse " LIGHTHOUSE_VERSION, "Print the version and exit");
  app->set_help_flag("-h,--help", "Print this help and exit");
  app->require_subcommand(1);
  add_train_command(*app);
  add_launch_command(*app);
  add_eval_command(*app);
  add_audit_command(*app);
  add_generate_command(*app);
  add_export_command(*app);
  add_bench_command(*app);
  add_init_command(*app);
  add_plan_command(*app);
  add_info_command(*app);
  add_completion_command(*app);
  for (CLI::App* command : app->get_subcommands({})) command->group("Commands");
  app->footer(
      "'lighthouse COMMAND --help' describes a command. Exit codes: 0 done, 1 failed, 2 wrong usage or "
      "configuration.\n\n"
      "Examples:\n"
      "  lighthouse train --config configs/quick.toml --data.path corpus/ --logging.run_dir runs/mine\n"
      "  lighthouse eval --run runs/mine");
  return app;
}

std::vector<std::string> split_arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int index = 1; index < argc; ++index) {
    const std::string argument = argv[index];
    const size_t equals = argument.starts_with("--") ? argument.find('=') : std::string::npos;
    arguments.push_back(argument.substr(0, equals));
    if (equals != std::string::npos) arguments.push_back(argument.substr(equals + 1));
  }
  return arguments;
}

std::string command_name(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return app.get_name() + (commands.empty() ? "" : " " + command_name(*commands.front()));
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = parsed_command(app);
  const std::vector<std::string> unknown = app.remaining(true);
  std::string message = error.what();
  if (error.get_name() == "RequiredError" && !subcommand_names(command).empty()) message = "no command given";
  if (error.get_name() == "ArgumentMismatch") {
    const bool repeated = message.find("At Most") != std::string::npos;
    message = message.substr(0, message.find(':')) + (repeated ? ": is given twice; give it once" : ": needs a value");
  }
  const bool is_meant = command.get_prefix_command();  // of launch: the command that it starts
  if (!unknown.empty() && !is_meant) message = unknown_argument(command, unknown.front());
  if (!message.ends_with('?')) message += "; see '" + command_name(app) + " --help'";
  return message;
}

}  // namespace lighthouse::cli
