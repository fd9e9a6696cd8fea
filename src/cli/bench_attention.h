// `lighthouse bench attention`.
#pragma once

namespace CLI {
class App;
}

namespace lighthouse::cli {

/// Adds the command `bench` with its benchmarks as subcommands.
void add_bench_command(CLI::App& app);

}  // namespace lighthouse::cli
