// A run as the commands that follow training open it.
#pragma once

#include <filesystem>
#include <string>

#include "train/run_loading.h"

namespace lighthouse::cli {

/// load_run with its warnings on standard error, and as many threads as the run asks for: validation then has the bits
/// that training had. Throws as load_run does.
LoadedRun open_run(const std::string& run_dir, std::optional<DeviceChoice> device = {},
                   std::optional<Precision> precision = {});

/// Throws InvalidArgument unless `loader`, of the text at `path`, reads the corpus that a run was trained on, of which
/// the run held out what is read.
void check_corpus(const std::filesystem::path& run_dir, const CorpusIdentity& corpus, const SequenceLoader& loader,
                  const std::string& path);

/// Throws UsageError unless one of `run` and `model`, of --run and --model, names something.
void check_one_model(const std::string& run, const std::string& model);
/// Throws UsageError where --model is no folder of a model.
void check_model_folder(const std::string& folder);

/// The folder of its tokenizer: that of its corpus, or else of the model from which it began; empty: it has none, or
/// its tokens are bytes.
std::filesystem::path tokenizer_of(const std::filesystem::path& run_dir, const RunConfig& config);

}  // namespace lighthouse::cli
