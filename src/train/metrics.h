// RUN/metrics.jsonl: one JSON object a line, each step at most once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/part_clock.h"
#include "train/append_file.h"
#include "train/rank_load.h"
#include "train/schedule.h"
#include "train/switch_tracker.h"

namespace lighthouse {

/// Mean losses in nats over the validation sequences.
struct ValidationRecord {
  double dense = 0;
  std::optional<double> lighthouse;  ///< measured where the run has a stage 1
};

/// Of a corpus of data.mixture.
struct SourceRecord {
  std::string name;            ///< its path
  std::optional<double> loss;  ///< of the step's sequences of it, where it has any
  double epochs = 0;           ///< how often it was read, this step included
  // After a validation, of its own held-out text, where the sample has any of it.
  std::optional<double> validation_loss, validation_loss_lighthouse;
};

/// What is logged of one optimizer step.
struct StepRecord {
  int64_t step = 0;  ///< steps done with this one
  Stage stage = Stage::kLighthouse;
  double loss = 0;  ///< mean over the step's targets, in nats
  double learning_rate = 0;
  double gradient_norm = 0;                    ///< before clipping
  int64_t tokens = 0;                          ///< trained on since the start of the run
  double tokens_per_s = 0;                     ///< of this step
  std::optional<double> mfu;                   ///< model FLOPs utilisation of this step, where it is known
  std::optional<int64_t> peak_memory;          ///< bytes allocated on the device at most, since the last record
  std::optional<PartSeconds> parts;            ///< where the step's time went; of a step that was measured
  std::optional<RankLoads> ranks;              ///< of several, those that stand out; of a step that was measured
  double step_seconds = 0;                     ///< of this step
  double seconds = 0;                          ///< spent by the run so far, earlier starts included
  double train_seconds = 0;                    ///< the same of steps alone: no validation, no waiting for checkpoints
  std::string spike;                           ///< not empty: what of this step stands out (spike_detector.h)
  std::string skipped;                         ///< not empty: why the step was not applied to the weights
  std::vector<SourceRecord> sources;           ///< of a mixture
  std::optional<ValidationRecord> validation;  ///< with the weights after this step
  std::optional<SwitchReport> switch_report;   ///< of a step that changed it
};

/// Keys step, stage, loss, learning_rate, grad_norm, tokens, tokens_per_s, time, train_seconds, and where there
/// are any: mfu, peak_memory, parts, ranks and sources (objects), spike, skipped, validation_loss,
/// validation_loss_lighthouse,
/// switch. Numbers that are not finite become null.
nlohmann::ordered_json to_json(const StepRecord& record);
/// The numbers of a record under TensorBoard's names.
std::vector<std::pair<std::string, double>> scalars(const StepRecord& record);

class MetricsFile {
 public:
  /// Goes on after `step` steps: lines of later steps and broken lines, which an earlier start left, are removed (the
  /// file is replaced as a whole). Throws std::system_error.
  MetricsFile(const std::filesystem::path& path, int64_t step);

  /// One line, whole or absent. Throws std::system_error.
  void write(const StepRecord& record);

 private:
  AppendFile file_;
};

}  // namespace lighthouse
