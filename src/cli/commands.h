// The commands of the program `lighthouse`. Each function adds one command to the parser; its callback runs it after
// the whole command line was read. Commands write results to standard output, messages to standard error, and report
// failure by throwing: main has the one catch.
#pragma once

#include <exception>
#include <stdexcept>

namespace CLI {
class App;
}

namespace lighthouse::cli {

/// Options that do not fit together, or arguments that no option has. Exit code 2, as ConfigError and InvalidArgument.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The end of the program, of which all is said.
struct ExitCode {
  int value;
};

/// An error that is said elsewhere: only its exit code is left.
struct Silenced {
  std::exception_ptr error;
};

void add_train_command(CLI::App& app);
void add_launch_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_audit_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_init_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_info_command(CLI::App& app);
void add_completion_command(CLI::App& app);

}  // namespace lighthouse::cli
