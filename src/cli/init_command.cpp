#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/file_option.h"
#include "cli/init_file.h"
#include "cli/number_option.h"
#include "cli/option_words.h"
#include "cli/plan_device.h"
#include "config/limits.h"
#include "config/schema.h"
#include "data/sequence_loader.h"
#include "io/durable_file.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/import.h"
#include "plan/starting_point.h"
#include "plan/time.h"
#include "train/prepared_corpus.h"

namespace lighthouse::cli {
namespace {
namespace fs = std::filesystem;

struct InitArguments {
  std::string model, data, validation, output;
  int64_t seq_len = 0, world_size = 1;
  PlanDeviceOptions device;
  bool force = false;
};

/// A folder of transformers, with or without weights, or a preset.
InitModel read_model(const std::string& name) {
  const fs::path folder = name;
  std::error_code none;
  if (!fs::is_directory(folder, none)) {
    try {
      return {name, model_preset(name)};
    } catch (const ConfigError&) {
      throw UsageError("--model " + name + ": is neither a folder with " + kHuggingfaceConfigFile +
                       " nor a preset: " + CLI::detail::join(model_preset_names(), ", "));
    }
  }
  if (!fs::exists(folder / kHuggingfaceConfigFile, none)) {
    throw UsageError("--model " + name + ": has no " + kHuggingfaceConfigFile +
                     "; give the folder that save_pretrained or lighthouse export has written");
  }
  const bool trained =
      fs::exists(folder / kHuggingfaceWeightsFile, none) || fs::exists(folder / kHuggingfaceIndexFile, none);
  return {name, read_huggingface_config(folder), /*is_folder=*/true, trained, read_huggingface_positions(folder)};
}

/// A corpus as `train` takes it, of a folder of lighthouse-prepare its two data sets.
InitCorpus find_corpus(const InitArguments& options) {
  InitCorpus corpus;
  corpus.data.path = options.data;
  corpus.data.validation_path = options.validation;
  const std::optional<PreparedFolder> prepared = prepared_folder(options.data);
  if (!prepared) return corpus;
  corpus.data.path = prepared->train.string();
  if (!options.validation.empty() || prepared->validation.empty()) return corpus;
  if (prepared->num_validation_tokens > options.seq_len) {
    corpus.data.validation_path = prepared->validation.string();
  } else {
    corpus.why_fraction = "of the training text: '" + prepared->validation.string() + "' has " +
                          std::to_string(prepared->num_validation_tokens) + " tokens, less than one sequence";
  }
  return corpus;
}

/// The corpus is there, long enough, and of tokens that the model reads. A preset gets the vocabulary of its corpus.
void open_corpus(const InitArguments& options, InitModel& model, InitCorpus& corpus) {
  constexpr int64_t kRound = 64;  // products of matrices are fastest so
  const std::optional<int64_t> vocabulary = prepared_vocabulary(corpus.data);
  if (!model.is_folder && vocabulary) {
    model.config.vocab_size = *vocabulary == 256 ? 256 : (*vocabulary + kRound - 1) / kRound * kRound;
  }
  const auto loader = in_words_of_options(
      [&] {
        check_vocabulary(corpus.data, model.config.vocab_size);
        if (model.is_folder) check_tokenizer(corpus.data, model.name, model.config.vocab_size);
        return std::make_unique<SequenceLoader>(corpus.data, options.seq_len, model.config.vocab_size);
      },
      "--validation");
  corpus.is_text = is_text(corpus.data, corpus.data.path);
  if (corpus.is_text && !model.is_folder) model.config.vocab_size = 256;
  corpus.tokens = loader->num_training_tokens();
  corpus.validation_sequences = loader->num_validation_sequences();
}

/// Weights that know fewer positions go on with a larger base.
void lengthen(InitModel& model, int64_t seq_len) {
  if (!model.trained || model.positions == 0 || seq_len <= model.positions) return;
  model.config.rope_theta = longer_rope_theta(model, seq_len);
  model.rope_changed = true;
}

void run_init(const InitArguments& options) {
  check_output_file({"--output", options.output, "my.toml", options.force, ", or replace it with --force"});
  InitModel model = read_model(options.model);
  lengthen(model, options.seq_len);
  InitCorpus corpus = find_corpus(options);
  open_corpus(options, model, corpus);
  const PlanDevice device = options.device.resolve(DeviceChoice::kAuto);
  const StartingRequest request{
      model.config,       model.trained,       options.seq_len,
      corpus.tokens,      device.memory_bytes, device.cuda,
      options.world_size, device.ranking(),    device.host_share(options.world_size, kNodeSize)};
  const StartingPoint start = in_words_of_options([&] { return starting_point(request); });
  write_file_durably(options.output, init_file(model, corpus, device, options.output, start));
  std::cout << options.output << '\n';
  std::cerr << "start it with: " << printable(train_command(options.output, options.world_size)) << std::endl;
}

}  // namespace

void add_init_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("init", "Write a commented configuration for a model, a corpus, a length and a device");
  auto options = std::make_shared<InitArguments>();
  names_path(command->add_option("--model", options->model,
                                 "Folder of transformers: with weights training goes on from them; or a preset: " +
                                     CLI::detail::join(model_preset_names(), ", ")))
      ->required()
      ->option_text("FOLDER|PRESET");
  names_path(command->add_option("--data", options->data,
                                 "What lighthouse-prepare has written, or any corpus that data.path of train may be"))
      ->required()
      ->option_text("CORPUS");
  names_path(
      command->add_option("--validation", options->validation, "A corpus to validate on; default: of the corpus"))
      ->option_text("CORPUS");
  within(command->add_option("--seq-len", options->seq_len, "Tokens of a sequence")->required(), kSequenceLengths)
      ->option_text("N");
  add_plan_device_options(*command, options->device);
  within(command->add_option("--world-size", options->world_size, "Devices that train together"),
         IntegerRange{1, 1 << 20})
      ->option_text("1");
  names_file(command->add_option("--output", options->output, "Configuration to write; complete or not there at all"))
      ->required()
      ->option_text("FILE.toml");
  command->add_flag("--force", options->force, "Replace a file that is there");
  command->footer(
      "Every value that it chooses stands in the file with the reason; docs/training.md says more of each.\n\n"
      "Examples:\n"
      "  lighthouse init --model my_llama --data tokens --seq-len 65536 --device h200 --output my.toml\n"
      "  lighthouse init --model small --data texts/ --seq-len 8192 --device cpu --output my.toml\n"
      "  lighthouse init --model llama3-8b --data tokens --seq-len 131072 --device h200 --world-size 8 --output "
      "my.toml");
  command->callback([options] { run_init(*options); });
}

}  // namespace lighthouse::cli
