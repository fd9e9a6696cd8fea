// What a run has come to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "train/metrics.h"
#include "train/step_meter.h"
#include "train/switch_tracker.h"

namespace lighthouse {

struct TrainResult {
  std::filesystem::path run_dir;
  int64_t step = 0;                            ///< steps done
  bool complete = false;                       ///< all of training.steps; false: stopped by a signal
  std::optional<double> loss;                  ///< training loss, mean of the last steps (SwitchTracker's window)
  std::optional<ValidationRecord> validation;  ///< the last one
  SwitchReport switch_report;
  int64_t num_spikes = 0;         ///< steps whose loss or gradient norm stood out (spike_detector.h)
  int64_t tokens = 0;             ///< trained on
  double seconds = 0;             ///< of training, earlier starts included
  double train_seconds = 0;       ///< of its steps alone
  std::vector<StageSpeed> speed;  ///< of this start
};

}  // namespace lighthouse
