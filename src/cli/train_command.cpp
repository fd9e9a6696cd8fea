#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <system_error>

#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/file_option.h"
#include "cli/generated_text.h"
#include "cli/held_signals.h"
#include "cli/open_run.h"
#include "cli/ranks.h"
#include "cli/terminal.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "parallel/world.h"
#include "train/device.h"
#include "train/device_memory.h"
#include "train/key_changes.h"
#include "train/out_of_memory.h"
#include "train/stop_signal.h"
#include "train/text.h"
#include "train/trainer.h"

namespace lighthouse::cli {
namespace {

constexpr int64_t kPromptTokens = 64;  // of the sample: enough to tell what kind of text goes on

struct TrainArguments {
  std::string resume = "auto";
  bool print_config = false;
  std::string profile_file;
  std::string profile_steps;
  std::string change;
  std::unique_ptr<ConfigOptions> config;
};

void print_row(std::ostream& out, const std::string& name, std::optional<double> before, std::optional<double> end,
               std::optional<int64_t> recovered) {
  const auto number = [](const std::optional<double>& loss) { return loss ? fixed(*loss, 4) : std::string("-"); };
  out << std::left << std::setw(28) << name << std::right << std::setw(17) << number(before) << std::setw(12)
      << number(end) << (recovered ? "   recovered at step " + std::to_string(*recovered) : "") << '\n';
}

/// Losses on both sides of the switch, in nats per token, and where the run is.
void print_summary(const TrainResult& result, std::ostream& out) {
  const SwitchReport& at_switch = result.switch_report;
  std::optional<double> dense_before;
  if (at_switch.pre_switch_validation && at_switch.validation_jump) {
    dense_before = *at_switch.pre_switch_validation + *at_switch.validation_jump;
  }
  out << std::left << std::setw(28) << "loss" << std::right << std::setw(17) << "before the switch" << std::setw(12)
      << "last" << '\n';
  print_row(out, "training", at_switch.pre_switch_loss, result.loss, std::nullopt);
  if (result.validation) {
    if (const std::optional<double> lighthouse = result.validation->lighthouse) {
      print_row(out, "validation, lighthouse", at_switch.pre_switch_validation, lighthouse, std::nullopt);
    }
    print_row(out, "validation, dense", dense_before, result.validation->dense, at_switch.validation_recovered_step);
  }
  out << "run folder: " << printable_name(result.run_dir.string()) << std::endl;
  const std::string speed = speed_table(result.speed);
  if (!speed.empty()) out << '\n' << speed << std::flush;
}

/// What is wrong with a tokenizer is no reason to fail after a training.
TokenFormat sample_format(const RunConfig& config) {
  try {
    return TokenFormat::of(config.model, tokenizer_of(config.logging.run_dir, config));
  } catch (const InvalidArgument& error) {
    std::cerr << "warning: the sample is of token numbers: " << printable(error.what()) << std::endl;
  }
  return TokenFormat::numbers();
}

/// How the model goes on after text that it was not trained on, or for want of that after its first training text.
void print_sample(const Trainer& trainer, const RunConfig& config, std::ostream& out) {
  const SequenceLoader& loader = trainer.loader();
  const Sequence text =
      loader.num_validation_sequences() > 0 ? loader.validation_sequence(0) : loader.training_sequence(0);
  const auto prompt_len = std::min<int64_t>(kPromptTokens, static_cast<int64_t>(text.inputs.size()));
  GenerateOptions how;
  how.max_tokens = config.logging.sample_tokens;
  how.temperature = 0.8;
  how.top_p = 0.95;
  out << "\nsample: " << prompt_len << " tokens of text, then " << how.max_tokens << " of the model\n"
      << "----" << std::endl;
  write_generated(trainer.decoder(), std::span(text.inputs).first(static_cast<size_t>(prompt_len)), how,
                  sample_format(config), out, {}, [] { return StopSignals::received() == 0; });
}

/// The run is done: what is missing of memory now is no reason to fail.
void try_to_print_sample(const Trainer& trainer, const RunConfig& config) {
  try {
    print_sample(trainer, config, std::cout);
  } catch (const std::exception& error) {
    const auto reason = out_of_memory_reason(error);
    if (!reason) throw;
    std::cerr << "\nwarning: out of memory in the sample: " << *reason << "; the run is done and saved" << std::endl;
  }
}

void open_trainer(std::optional<Trainer>& trainer, const RunConfig& config, const TrainOptions& how) {
  try {
    trainer.emplace(config, how);
  } catch (const std::exception& error) {
    const auto reason = out_of_memory_reason(error);
    if (!reason) throw;
    const int64_t local_rank = how.world == nullptr ? 0 : how.world->launch().local_rank;
    throw std::runtime_error(out_of_memory_message(config, resolve_device(config.training.device, local_rank),
                                                   "while the run is opened, which changes no checkpoint", *reason));
  }
}

/// Whether the file is what an earlier start with --profile has left: a job that is queued again goes on.
bool is_trace(const std::string& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return false;
  std::string begin(64, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return begin.find("\"schemaVersion\"") != std::string::npos;
}

/// --profile and --profile-steps "A:B".
ProfileOptions profile_options(const TrainArguments& options) {
  ProfileOptions profile;
  profile.file = options.profile_file;
  if (!options.profile_file.empty()) {
    check_output_file({"--profile", options.profile_file, "trace.json", is_trace(options.profile_file), ""});
  }
  if (options.profile_steps.empty()) return profile;
  if (options.profile_file.empty()) throw ConfigError("--profile-steps: give --profile FILE too");
  std::istringstream text(options.profile_steps);
  char colon = 0;
  if (!(text >> profile.first_step >> colon >> profile.last_step) || colon != ':' || text.peek() != EOF ||
      profile.first_step < 1 || profile.last_step < profile.first_step) {
    throw ConfigError("--profile-steps " + options.profile_steps +
                      ": must be the first and the last step, as 10:12, counted from 1");
  }
  return profile;
}

/// --change "KEY,KEY".
std::vector<std::string> changing_keys(const std::string& text) {
  std::vector<std::string> keys;
  std::istringstream parts(text);
  for (std::string key; std::getline(parts, key, ',');) keys.push_back(key);
  try {
    check_changeable(keys);
  } catch (const ConfigError& error) {
    throw ConfigError(std::string("--change ") + error.what());
  }
  return keys;
}

RunConfig load_config(const TrainArguments& options) {
  RunConfig config = options.config->load();
  if (config.data.path.empty() && config.data.mixture.empty()) {
    throw ConfigError(
        "data.path: no corpus; give --data.path FILE or FOLDER, or path in [data] of the configuration, or "
        "several as data.mixture");
  }
  return config;
}

void run_train(const TrainArguments& options) {
  if (options.print_config) {
    deliver_held_signals();
    std::cout << to_toml(options.config->load());
    return;
  }
  expand_segments();
  TrainOptions how;
  const RankStart start = start_ranks([&] {
    how.profile = profile_options(options);
    how.change = changing_keys(options.change);
    return load_config(options);
  });
  // While the run is opened, during the sample, and to the end of the process, when all is saved: never destroyed.
  static const auto* const signals = new StopSignals;
  static_cast<void>(signals);
  deliver_held_signals();
  how.resume = options.resume == "auto";
  how.log = start.is_speaker() ? &std::cerr : nullptr;
  how.columns = drawing_columns(STDERR_FILENO);
  how.world = start.world.get();
  std::optional<Trainer> trainer;
  say_once(start, [&] { open_trainer(trainer, start.config, how); });
  say_with_rank(start, [&] {
    const TrainResult result = trainer->run();
    if (!start.is_speaker()) return;
    print_summary(result, std::cout);
    if (!result.complete || start.config.logging.sample_tokens == 0) return;
    if (StopSignals::received() == 0) try_to_print_sample(*trainer, start.config);
    if (const int signal = StopSignals::received()) {
      std::cerr << "the sample was stopped by " << StopSignals::name(signal) << "; the run is done and saved"
                << std::endl;
    }
  });
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a decoder in two stages, or resume a run");
  auto options = std::make_shared<TrainArguments>();
  options->config = std::make_unique<ConfigOptions>(*command);
  command
      ->add_option("--resume", options->resume,
                   "auto: go on from the newest checkpoint in logging.run_dir; never: start a new run")
      ->check(CLI::IsMember({"auto", "never"}))
      ->option_text("auto");
  command
      ->add_option("--change", options->change,
                   "Keys that may differ from those of the checkpoint that the run goes on from, for the steps to come")
      ->option_text("KEY,KEY,...");
  command->add_flag("--print-config", options->print_config, "Print the resolved configuration as TOML and exit");
  names_file(command->add_option("--profile", options->profile_file,
                                 "Write a trace of some steps for https://ui.perfetto.dev or chrome://tracing, as a "
                                 "new file"))
      ->option_text("FILE.json");
  command
      ->add_option("--profile-steps", options->profile_steps,
                   "The first and the last step of the trace; default: three steps after the warm-up of this start")
      ->option_text("A:B");
  command->footer(
      "Lists are separated by commas: --attention.full_attention_layers 0,1,28,29 (none: [])\n"
      "Several GPUs: lighthouse launch, or torchrun and srun (docs/training.md)\n\n"
      "Examples:\n"
      "  lighthouse train --config configs/quick.toml --data.path corpus/ --logging.run_dir runs/mine\n"
      "  lighthouse train --data.path corpus.txt --training.steps 20 --training.lighthouse_steps 12\n"
      "  lighthouse train --config my.toml --print-config");
  command->callback([options] { run_train(*options); });
}

}  // namespace lighthouse::cli
