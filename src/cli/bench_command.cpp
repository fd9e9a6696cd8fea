#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>

#include "bench/attention_bench.h"
#include "cli/commands.h"

namespace lighthouse::cli {
namespace {

void add_shape_options(CLI::App& command, bench::BenchOptions& options) {
  command.add_option("--seq-len", options.seq_lens, "Sequence lengths N in tokens")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--batch", options.batch, "Sequences")->capture_default_str();
  command.add_option("--num-heads", options.num_heads, "Query heads")->capture_default_str();
  command.add_option("--num-kv-heads", options.num_kv_heads, "Key/value heads; divide the query heads")
      ->capture_default_str();
  command.add_option("--head-dim", options.head_dim, "Channels of a head")->capture_default_str();
  command.add_option("--device", options.device, "Where to compute")
      ->check(CLI::IsMember({"cpu"}))
      ->capture_default_str();
  command.add_option("--dtype", options.dtype, "Of q, k and v")
      ->check(CLI::IsMember({"float32", "float64", "bfloat16", "float16"}))
      ->capture_default_str();
}

void add_attention_options(CLI::App& command, bench::BenchOptions& options) {
  command.add_option("--num-levels", options.selection.num_levels, "Pyramid levels L")->capture_default_str();
  command.add_option("--pooling-factor", options.selection.pooling_factor, "Pooling factor p")->capture_default_str();
  command.add_option("--topk", options.selection.topk, "Entries expanded per level k; 0: N / 64")
      ->capture_default_str();
  command.add_option("--tile-topk", options.selection.tile_topk, "Share of k that one tile is given")
      ->capture_default_str();
  command.add_option("--scorer", options.score.scorer, "What scores the tokens")
      ->check(CLI::IsMember({"norm", "dilated"}))
      ->capture_default_str();
}

void add_timing_options(CLI::App& command, bench::BenchOptions& options) {
  command.add_option("--seconds", options.seconds, "Time for each measurement, at least 3 runs")->capture_default_str();
  command.add_option("--max-dense-len", options.max_dense_len, "Leave dense attention out beyond this length")
      ->capture_default_str();
  command.add_flag("--check", options.check, "Compare with stock operators in float64 before timing");
  command.add_option("--output", options.output, "File for results as JSON lines")->option_text("FILE");
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure how fast the parts are on this machine");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand(
      "attention", "Time Lighthouse attention beside dense attention and stock attention at the gathered length");
  auto options = std::make_shared<bench::BenchOptions>();
  add_shape_options(*command, *options);
  add_attention_options(*command, *options);
  add_timing_options(*command, *options);
  command->callback([options] {
    std::sort(options->seq_lens.begin(), options->seq_lens.end());
    bench::run_attention_bench(*options, std::cout);
  });
}

}  // namespace lighthouse::cli
