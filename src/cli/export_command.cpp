#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/file_option.h"
#include "cli/open_run.h"
#include "cli/word_option.h"
#include "model/export.h"
#include "model/tokenizer_files.h"
#include "train/device.h"
#include "train/initial_weights.h"
#include "train/prepared_corpus.h"

namespace lighthouse::cli {
namespace {

struct ExportArguments {
  std::string run;
  std::string output;
  std::string tokenizer;
  Precision dtype = Precision::kFp32;
  bool overwrite = false;
};

/// The one that is given, or else that of the corpus.
void choose_tokenizer(const ExportArguments& options, ExportOptions& how) {
  how.tokenizer = options.tokenizer;
  const std::filesystem::path kept = std::filesystem::path(options.run) / kTokenizerFolder;
  if (!options.tokenizer.empty() || !std::filesystem::is_directory(kept)) return;
  how.tokenizer = kept;
  how.trained_tokenizer = true;
  if (std::filesystem::exists(kept / kTokenizerFile)) return;
  std::cerr << "warning: the tokenizer is not exported: '" << kept.string() << "' has no " << kTokenizerFile
            << ", and transformers reads a tokenizer.model otherwise than the corpus was made, which depends on its "
               "version; give a tokenizer with --tokenizer FOLDER"
            << std::endl;
}

void run_export(const ExportArguments& options) {
  const LoadedRun run = open_run(options.run, DeviceChoice::kCpu, Precision::kFp32);
  ExportOptions how;
  how.dtype = resolve_precision(options.dtype);
  how.max_positions = run.config.training.seq_len;
  how.overwrite = options.overwrite;
  how.origin = initial_model_of(options.run, run.config);
  choose_tokenizer(options, how);
  if (run.config.model.rope_scaling == RopeScaling::kYarn) {
    std::cerr << "warning: RoPE is scaled by yarn, which transformers before 4.57 reads otherwise; load the model with "
                 "that or a later version"
              << std::endl;
  }
  for (const std::filesystem::path& path : export_huggingface(run.decoder, options.output, how)) {
    std::cout << path.string() << '\n';
  }
}

}  // namespace

void add_export_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("export", "Write a run's model as a folder that transformers loads");
  auto options = std::make_shared<ExportArguments>();
  names_folder(command->add_option("--run", options->run, "Run folder: its newest whole checkpoint"))
      ->required()
      ->option_text("RUN");
  names_folder(command->add_option("--output", options->output, "Folder to write; complete or not there at all"))
      ->required()
      ->option_text("FOLDER");
  names_folder(
      command->add_option("--tokenizer", options->tokenizer, "Folder of its tokenizer, in the place of the run's"))
      ->option_text("FOLDER");
  add_word_option<Precision>(*command, "--dtype", options->dtype, "Of the weights: fp32 or bf16")->option_text("fp32");
  command->add_flag("--overwrite", options->overwrite, "Replace an earlier export");
  command->footer(
      "Writes model.safetensors, config.json, generation_config.json and the files of the tokenizer, where there is "
      "one, "
      "and prints their paths.\n\n"
      "Examples:\n"
      "  lighthouse export --run runs/mine --output my_model\n"
      "  lighthouse export --run runs/mine --output my_model --dtype bf16 --overwrite");
  command->callback([options] { run_export(*options); });
}

}  // namespace lighthouse::cli
