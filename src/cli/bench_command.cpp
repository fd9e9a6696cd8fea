#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/attention_bench.h"
#include "cli/commands.h"
#include "cli/file_option.h"
#include "cli/number_option.h"
#include "cli/option_words.h"
#include "cli/word_option.h"
#include "train/device.h"

namespace lighthouse::cli {
namespace {

/// Options whose default depends on the device.
struct DeviceOptions {
  DeviceChoice device = DeviceChoice::kAuto;
  std::optional<std::vector<int64_t>> seq_lens;
  std::optional<int64_t> num_heads, num_kv_heads, head_dim, max_dense_len;
  std::optional<std::string> dtype;
  std::optional<double> seconds;

  /// `options` with these and the defaults of the device.
  bench::BenchOptions applied_to(bench::BenchOptions options) const {
    const bool cuda = in_words_of_device([&] { return resolve_device(device).is_cuda(); }, /*given=*/true);
    options.device = cuda ? "cuda" : "cpu";
    const bench::BenchOptions defaults = bench::default_options(options.device);
    options.seq_lens = seq_lens.value_or(defaults.seq_lens);
    options.num_heads = num_heads.value_or(defaults.num_heads);
    options.num_kv_heads = num_kv_heads.value_or(num_heads ? *num_heads : defaults.num_kv_heads);
    options.head_dim = head_dim.value_or(defaults.head_dim);
    options.dtype = dtype.value_or(defaults.dtype);
    options.seconds = seconds.value_or(defaults.seconds);
    options.max_dense_len = max_dense_len.value_or(defaults.max_dense_len);
    return options;
  }
};

void add_shape_options(CLI::App& command, DeviceOptions& on_device, bench::BenchOptions& options) {
  add_word_option<DeviceChoice>(command, "--device", on_device.device, "Where to compute: auto, cpu or cuda")
      ->option_text("auto");
  command
      .add_option("--dtype", on_device.dtype, "Of q, k and v: float32, float64, bfloat16 or float16; cuda: bfloat16")
      ->check(CLI::IsMember({"float32", "float64", "bfloat16", "float16"}))
      ->option_text("float32");
  within(command.add_option("--seq-len", on_device.seq_lens, "Sequence lengths N in tokens; cuda: 8192 to 131072"),
         IntegerRange{1})
      ->delimiter(',')
      ->option_text("2048,4096,8192");
  within(command.add_option("--batch", options.batch, "Sequences"), IntegerRange{1})->option_text("1");
  within(command.add_option("--num-heads", on_device.num_heads, "Query heads; cuda: 8"), IntegerRange{1})
      ->option_text("4");
  within(command.add_option("--num-kv-heads", on_device.num_kv_heads,
                            "Key/value heads; divide the query heads; usually as many as those"),
         IntegerRange{1})
      ->option_text("N");
  within(command.add_option("--head-dim", on_device.head_dim, "Channels of a head; cuda: 128"), IntegerRange{1})
      ->option_text("64");
}

void add_attention_options(CLI::App& command, bench::BenchOptions& options) {
  within(command.add_option("--num-levels", options.selection.num_levels, "Pyramid levels L"), IntegerRange{1})
      ->option_text("3");
  within(command.add_option("--pooling-factor", options.selection.pooling_factor, "Pooling factor p"), IntegerRange{1})
      ->option_text("4");
  within(command.add_option("--topk", options.selection.topk, "Entries expanded per level k; 0: N / 64"),
         IntegerRange{0})
      ->option_text("0");
  within(command.add_option("--tile-topk", options.selection.tile_topk, "Share of k that one tile is given"),
         IntegerRange{1})
      ->option_text("128");
  add_word_option<Scorer>(command, "--scorer", options.score.scorer,
                          "What scores the tokens: norm, dilated or gla, which is given a random gate",
                          {"norm", "dilated", "gla"})
      ->option_text("norm");
  CLI::Option* suite =
      command
          .add_option("--suite", options.suite,
                      "A list of cases in place of lengths and selection. paper: its layer from 2,048 to 1,048,576 "
                      "tokens, with all three scorers")
          ->check(CLI::IsMember({"paper"}))
          ->option_text("NAME");
  for (const char* name : {"--seq-len", "--num-levels", "--pooling-factor", "--topk", "--tile-topk", "--scorer"}) {
    suite->excludes(command.get_option(name));
  }
}

void add_timing_options(CLI::App& command, DeviceOptions& on_device, bench::BenchOptions& options) {
  within(command.add_option("--seconds", on_device.seconds,
                            "Time for each measurement, at least 20 runs, 3 of those that take over a second"),
         NumberRange{.min = 0, .min_excluded = true})
      ->option_text("1");
  within(command.add_option("--max-dense-len", on_device.max_dense_len,
                            "Leave dense attention out beyond this length; cuda: 524288"),
         IntegerRange{0})
      ->option_text("65536");
  within(command.add_option("--max-graph-len", options.max_graph_len, "Time in a CUDA graph too up to this length"),
         IntegerRange{0})
      ->option_text("32768");
  command.add_flag("--check", options.check, "Compare with stock operators in float64 before timing");
  names_file(command.add_option("--output", options.output, "File for results as JSON lines"))->option_text("FILE");
  command.footer(
      "Columns: dense, stock scaled_dot_product_attention (SDPA) over all N tokens; SDPA at S, the same over the S "
      "rows "
      "that are gathered, which nothing built on it can beat; lighthouse; then how many times faster it is than dense, "
      "and how many times what SDPA at S takes. On two CPU cores the defaults take about a minute, and "
      "--seq-len 65536 some minutes more.\n\n"
      "Examples:\n"
      "  lighthouse bench attention\n"
      "  lighthouse bench attention --seq-len 4096,16384 --scorer dilated --check\n"
      "  lighthouse bench attention --device cuda --suite paper --output bench.jsonl");
}

void run_bench(const bench::BenchOptions& options) {
  if (!options.output.empty()) {
    check_output_file({"--output", options.output.string(), "bench.jsonl", /*replaces=*/true, ""});
  }
  bench::run_attention_bench(options, std::cout, &std::cerr);
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure how fast the parts are on this machine");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand(
      "attention", "Time Lighthouse attention beside dense attention and stock attention at the gathered length");
  auto options = std::make_shared<bench::BenchOptions>();
  auto on_device = std::make_shared<DeviceOptions>();
  add_shape_options(*command, *on_device, *options);
  add_attention_options(*command, *options);
  add_timing_options(*command, *on_device, *options);
  command->callback([options, on_device] { run_bench(on_device->applied_to(*options)); });
  bench->footer("Examples:\n  lighthouse bench attention");
}

}  // namespace lighthouse::cli
