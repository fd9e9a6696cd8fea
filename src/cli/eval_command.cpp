#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/open_run.h"
#include "config/schema.h"
#include "eval/validation.h"
#include "train/text.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string run;
  std::string data;
  std::string attention = "both";
  std::string device;
  std::optional<int64_t> sequences;  ///< empty: as in the run
  std::optional<int64_t> seq_len;    ///< empty: as in the run
  bool json = false;
};

/// The run's configuration with what the command line asks for.
RunConfig configure(const RunConfig& run, const Options& options) {
  RunConfig config = run;
  if (!options.data.empty()) config.data.path = config.data.validation_path = options.data;
  if (options.sequences) config.validation.sequences = *options.sequences;
  if (options.seq_len) config.training.seq_len = *options.seq_len;
  validate(config);
  return config;
}

/// Names as in metrics.jsonl.
Json evaluate(const LoadedRun& run, const Options& options) {
  const RunConfig config = configure(run.config, options);
  const SequenceLoader loader(config.data, config.training.seq_len, config.model.vocab_size);
  Json result = {{"run", options.run}, {"step", run.step}, {"seq_len", config.training.seq_len}};
  const auto add = [&](const char* name, AttentionMode mode) {
    const ValidationLoss loss = validation_loss(run.decoder, loader, config.validation.sequences, mode);
    result["sequences"] = loss.num_sequences;
    result["targets"] = loss.num_targets;
    result[name] = std::isfinite(loss.loss) ? Json(loss.loss) : Json();
  };
  if (options.attention != "lighthouse") add("validation_loss", AttentionMode::kDense);
  if (options.attention != "dense") add("validation_loss_lighthouse", AttentionMode::kLighthouse);
  return result;
}

void print_loss(const Json& result, const char* key, const char* name) {
  if (!result.contains(key)) return;
  std::cout << name;
  if (result[key].is_null()) {
    std::cout << "not finite\n";
    return;
  }
  const double loss = result[key].get<double>();
  std::cout << fixed(loss, 4) << " nats, " << fixed(loss / std::log(2.0), 4) << " bits a token; perplexity "
            << fixed(std::exp(loss), 3) << '\n';
}

void print(const Json& result) {
  std::cout << "run " << result["run"].get<std::string>() << " after step " << result["step"] << ", "
            << result["sequences"] << " sequences of " << result["seq_len"] << " tokens\n";
  print_loss(result, "validation_loss", "dense       ");
  print_loss(result, "validation_loss_lighthouse", "lighthouse  ");
}

void run_eval(const Options& options) {
  const Json result = evaluate(open_run(options.run, options.device), options);
  if (options.json) {
    std::cout << result.dump(2) << '\n';
  } else {
    print(result);
  }
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Measure a run's loss on validation text");
  auto options = std::make_shared<Options>();
  command->add_option("--run", options->run, "Run folder: its newest whole checkpoint")->required()->option_text("RUN");
  command->add_option("--attention", options->attention, "With which attention: dense, lighthouse or both")
      ->check(CLI::IsMember({"dense", "lighthouse", "both"}))
      ->option_text("both");
  command->add_option("--data", options->data, "Another corpus than the run's validation text, all of it")
      ->option_text("PATH");
  command->add_option("--sequences", options->sequences, "At most so many sequences; usually as the run")
      ->option_text("N");
  command->add_option("--seq-len", options->seq_len, "Tokens of a sequence; usually as the run")->option_text("N");
  command->add_option("--device", options->device, "auto, cpu or cuda; usually as the run")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->option_text("DEVICE");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options] { run_eval(*options); });
}

}  // namespace lighthouse::cli
