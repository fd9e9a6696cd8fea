#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/file_option.h"
#include "cli/generated_text.h"
#include "cli/number_option.h"
#include "cli/open_run.h"
#include "cli/option_words.h"
#include "cli/word_option.h"
#include "io/input_file.h"
#include "lighthouse/check.h"
#include "model/import.h"
#include "model/tokenizer_files.h"
#include "train/device.h"

namespace lighthouse::cli {
namespace {

struct GenerateArguments {
  std::string run;
  std::string model;
  std::string prompt;
  std::string prompt_file;
  DeviceChoice device = DeviceChoice::kAuto;
  bool numbers = false;
  GenerateOptions generate;
};

/// A file that the command line names and that is not there is wrong usage, whatever it is for.
std::string read_prompt(const GenerateArguments& options) {
  if (options.prompt_file.empty()) return options.prompt;
  try {
    return read_text_file(options.prompt_file);
  } catch (const std::runtime_error& error) {  // std::system_error or DamagedFile
    throw UsageError(std::string("--prompt-file: ") + error.what());
  }
}

/// A model and where its tokenizer is; empty: nowhere.
struct Model {
  Decoder decoder;
  std::filesystem::path tokenizer;
};

Model open_generator(const GenerateArguments& options) {
  if (!options.model.empty()) {
    check_model_folder(options.model);
    return {load_huggingface(options.model, {}, {.device = resolve_device(options.device)}),
            has_text_tokenizer(options.model) ? options.model : ""};
  }
  LoadedRun run = open_run(options.run, options.device, Precision::kFp32);
  return {std::move(run.decoder), tokenizer_of(options.run, run.config)};
}

void run_generate(const GenerateArguments& options) {
  check_one_model(options.run, options.model);
  if (!options.prompt.empty() && !options.prompt_file.empty()) {
    throw UsageError("--prompt and --prompt-file: give one of them");
  }
  if (options.prompt.empty() && options.prompt_file.empty()) {
    throw UsageError("give what to go on from: --prompt TEXT or --prompt-file FILE");
  }
  const std::string prompt = read_prompt(options);
  const auto [decoder, tokenizer] = in_words_of_device([&] { return open_generator(options); }, /*given=*/true);
  const TokenFormat format = options.numbers ? TokenFormat::numbers() : TokenFormat::of(decoder.config(), tokenizer);
  const std::vector<int64_t> tokens = parse_tokens(
      prompt, format,
      options.numbers ? "" : "this model has no tokenizer here and its vocabulary is not of bytes, so give numbers");
  write_generated(decoder, tokens, options.generate, format, std::cout, format.ends());
}

}  // namespace

void add_generate_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Write on from a prompt, with dense attention and a KV cache");
  auto options = std::make_shared<GenerateArguments>();
  names_folder(command->add_option("--run", options->run, "Run folder: its newest whole checkpoint"))
      ->option_text("RUN");
  names_folder(command->add_option("--model", options->model, "Folder of 'lighthouse export' or transformers"))
      ->option_text("FOLDER");
  command->add_option("--prompt", options->prompt, "What to go on from")->option_text("TEXT");
  names_file(command->add_option("--prompt-file", options->prompt_file, "The same from a file"))->option_text("FILE");
  within(command->add_option("--max-tokens", options->generate.max_tokens, "How many tokens to generate"),
         IntegerRange{0})
      ->option_text(detail::concat(options->generate.max_tokens));
  command->add_flag("--greedy", options->generate.greedy, "Always the likeliest token");
  within(command->add_option("--temperature", options->generate.temperature,
                             "Divides the logits: below 1 likelier tokens, above 1 more variety"),
         NumberRange{.min = 0, .min_excluded = true})
      ->option_text(detail::concat(options->generate.temperature));
  within(
      command->add_option("--top-p", options->generate.top_p, "Sample from the likeliest tokens of this probability"),
      NumberRange{.min = 0, .max = 1, .min_excluded = true})
      ->option_text(detail::concat(options->generate.top_p));
  within(command->add_option("--seed", options->generate.seed, "Of the sampling: the same seed, the same text"),
         IntegerRange{0})
      ->option_text(detail::concat(options->generate.seed));
  add_word_option<DeviceChoice>(*command, "--device", options->device, "Where to compute: auto, cpu or cuda")
      ->option_text("auto");
  command->add_flag("--numbers", options->numbers, "Prompt and text as token numbers, separated by spaces");
  command->footer(
      "Prompt and text go to standard output. Where the run or the folder has a tokenizer they are its text, which "
      "ends "
      "where the model says so; python3, or the Python in LIGHTHOUSE_PYTHON, must have the package tokenizers. "
      "Without one a model of 256 tokens reads and writes bytes, shown as UTF-8, and another one token numbers.\n\n"
      "Examples:\n"
      "  lighthouse generate --run runs/mine --prompt 'Once upon a time' --temperature 0.8 --top-p 0.95\n"
      "  lighthouse generate --model my_model --prompt-file prompt.txt --max-tokens 500 --greedy");
  command->callback([options] { run_generate(*options); });
}

}  // namespace lighthouse::cli
