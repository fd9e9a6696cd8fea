// `lighthouse bench` of a build without the benchmarks (LIGHTHOUSE_BENCH=OFF, as `make train` makes it).
#include <CLI/CLI.hpp>
#include <stdexcept>

#include "cli/commands.h"

namespace lighthouse::cli {

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure time and memory (this build is without: make build)");
  command->prefix_command();
  command->callback([] {
    throw std::runtime_error(
        "bench: this build is without benchmarks; 'make build', or -DLIGHTHOUSE_BENCH=ON, adds them");
  });
}

}  // namespace lighthouse::cli
