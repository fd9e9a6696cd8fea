// Opens what a run has produced: for generation, export and evaluation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "config/run_config.h"
#include "data/sequence_loader.h"
#include "model/decoder.h"

namespace lighthouse {

struct LoadedRun {
  RunConfig config;
  int64_t step;           ///< steps done by the checkpoint
  CorpusIdentity corpus;  ///< what it was trained on
  Decoder decoder;
};

/// RUN/config.toml and the model of the newest checkpoint in which that is whole; the run may be in progress. `device`
/// and `precision` as in [training]; none takes the run's. `warn` is told of damaged checkpoints that were passed over.
/// Throws InvalidArgument when `run_dir` is not a run or has no checkpoint yet; ConfigError, DamagedFile and
/// std::system_error naming the file.
LoadedRun load_run(const std::filesystem::path& run_dir, std::optional<DeviceChoice> device = {},
                   std::optional<Precision> precision = {}, const std::function<void(const std::string&)>& warn = {});

}  // namespace lighthouse
