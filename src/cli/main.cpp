// lighthouse: results on standard output, messages on standard error. Exit codes: 0 done, 1 failed, 2 wrong usage or
// configuration.
#include <c10/util/Exception.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <system_error>

#include "cli/commands.h"
#include "cli/process.h"
#include "cli/ranks.h"
#include "cli/usage.h"
#include "config/schema.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "parallel/world.h"
#include "train/out_of_memory.h"

namespace lighthouse::cli {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

/// One line that names the command once: libraries begin with the operation, which is often the command.
int report(const CLI::App& app, const std::string& message, int exit_code) {
  const std::string name = command_name(app);
  const std::string operation = name.substr(std::min(name.size(), app.get_name().size() + 1)) + ": ";
  const bool named = message.starts_with(operation);
  std::cout.flush();
  constexpr size_t kMost = 16'000;
  const std::string text = shortened(named ? message.substr(operation.size()) : message, kMost);
  std::cerr << name << ": " << printable(text) << std::endl;
  return exit_code;
}

struct Failure {
  int exit_code;
  std::string message;
};

Failure failure_of(const CLI::App& app, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const CLI::ParseError& error) {
    return {kWrongUsage, usage_message(app, error)};
  } catch (const UsageError& error) {
    return {kWrongUsage, error.what()};
  } catch (const ConfigError& error) {
    return {kWrongUsage, error.what()};
  } catch (const InvalidArgument& error) {
    return {kWrongUsage, error.what()};
  } catch (const Disagreement& error) {
    return {kWrongUsage, error.what()};
  } catch (const c10::ValueError& error) {  // InvalidArgument, restated by an operator
    return {kWrongUsage, error.what_without_backtrace()};
  } catch (const std::filesystem::filesystem_error& error) {
    const std::error_code code = error.code();
    const bool never = code == std::errc::too_many_symbolic_link_levels || code == std::errc::filename_too_long;
    return {never ? kWrongUsage : kFailed, detail::concat("'", error.path1().string(), "': ", code.message())};
  } catch (const std::exception& error) {
    return {kFailed, lighthouse::words_of(error)};
  }
}

/// Reads the command line and runs its command. One that ranks would run together, or that has none, is refused
/// together.
void parse_and_run(CLI::App& app, std::vector<std::string> arguments) {
  std::reverse(arguments.begin(), arguments.end());  // the parser reads from the end
  try {
    app.parse(arguments);
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ParseError& error) {
    if (!app.get_subcommands().empty() && !app.got_subcommand("train")) throw;
    refuse_start(std::make_exception_ptr(UsageError(usage_message(app, error))));
  }
}

int run(CLI::App& app, const std::vector<std::string>& arguments) {
  try {
    parse_and_run(app, arguments);
    return kDone;
  } catch (const CLI::Success& request) {  // --help, --version
    std::ostringstream text;
    app.exit(request, text, text);
    std::cout << CLI::detail::find_and_replace(text.str(), "\n\n\n", "\n\n");  // between groups of options
    return kDone;
  } catch (const ExitCode& end) {
    return end.value;
  } catch (const Silenced& silenced) {
    return failure_of(app, silenced.error).exit_code;
  } catch (const std::exception&) {
    const Failure failure = failure_of(app, std::current_exception());
    return report(app, failure.message, failure.exit_code);
  }
}

/// Results that did not reach their reader are a failure, unless the reader had enough (`lighthouse info | head`).
int check_output(const CLI::App& app, int exit_code) {
  std::cout.flush();
  if (std::cout.good()) return exit_code;
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  const bool reader_left = poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
  if (reader_left) return exit_code;
  const std::string reason = write(STDOUT_FILENO, "\n", 1) < 0 ? std::string(": ") + std::strerror(errno) : "";
  return report(app, "cannot write to standard output" + reason, kFailed);
}

}  // namespace
}  // namespace lighthouse::cli

int main(int argc, char** argv) {
  namespace cli = lighthouse::cli;
  cli::prepare_process();
  const std::unique_ptr<CLI::App> app = cli::make_app();
  return cli::check_output(*app, cli::run(*app, cli::split_arguments(argc, argv)));
}
