// What a person is told of a run: as it begins, and as it ends.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "data/sequence_loader.h"
#include "train/environment.h"
#include "train/metrics.h"
#include "train/train_result.h"

namespace lighthouse {

/// Model, data and device; the run folder, its stages, and where the run begins after `step` steps done.
std::vector<std::string> opening_lines(const RunConfig& config, const SequenceLoader& loader,
                                       const Environment& environment, const std::filesystem::path& run_dir,
                                       int64_t step);

/// That stage one of a run with Lighthouse attention selects nothing; "" where it does.
std::string selection_warning(const RunConfig& config);

/// Steps, losses, the switch and spikes; of a run that is not complete, that `stop_signal` has ended it.
std::vector<std::string> closing_lines(const RunConfig& config, const TrainResult& result, int stop_signal);

/// Why `skipped_in_row` steps, of which `record` is the last, end the run.
std::string divergence_text(const StepRecord& record, int64_t skipped_in_row);

}  // namespace lighthouse
