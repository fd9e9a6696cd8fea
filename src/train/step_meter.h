// How fast training is, what memory it takes and where its time goes.
#pragma once

#include <c10/core/Device.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "model/part_clock.h"
#include "train/metrics.h"
#include "train/rank_load.h"
#include "train/schedule.h"

namespace lighthouse {

/// Of the steps of one stage in this session.
struct StageSpeed {
  Stage stage = Stage::kLighthouse;
  std::string attention;  ///< of the stage
  int64_t num_steps = 0;
  double tokens_per_s = 0;             ///< median over the steps
  std::optional<double> mfu;           ///< median over the steps
  std::optional<int64_t> peak_memory;  ///< bytes; the highest
  std::optional<PartSeconds> shares;   ///< of the time by part, sum 1; over the measured steps
};

/// Begin and end of every step are told to it; what it measured goes into the step's record.
class StepMeter {
 public:
  /// For one of `num_processes` that share the work of a step.
  StepMeter(const RunConfig& config, at::Device device, int64_t num_processes = 1);

  /// The step that will be number `step`. Every logging.timing_interval of them is measured by part.
  void begin(int64_t step);
  /// What the step under way has cost this rank so far. Of a step that is measured, seconds of all that the device was
  /// given, which it waits for, without those that it has waited for other ranks.
  RankLoad load(double waited_seconds) const;
  /// Fills step_seconds, tokens_per_s, mfu and, of a measured step, parts. A step that ended in an exception needs no
  /// end().
  void end(StepRecord& record);
  /// The peak of allocated memory since the last call; nullopt on the CPU.
  std::optional<int64_t> take_peak_memory(Stage stage);

  /// One entry for each stage that had a step, in their order.
  std::vector<StageSpeed> summary() const;

 private:
  struct Samples {
    std::optional<double> ideal_seconds;  ///< of a step at the device's peak rate, where that is known
    std::vector<double> tokens_per_s;     ///< [steps]
    std::vector<double> mfu;              ///< [steps of known mfu]
    std::optional<int64_t> peak_memory;
    std::optional<PartSeconds> seconds;  ///< sums over the measured steps
  };
  Samples& samples(Stage stage) { return samples_.at(stage == Stage::kLighthouse ? 0 : 1); }

  RunConfig config_;
  at::Device device_;
  std::chrono::steady_clock::time_point begin_;
  PartClock clock_;
  bool measures_ = false;  ///< clock_ runs
  std::array<Samples, 2> samples_;
};

/// The summary as a table for people: a line for each stage under a header. "" for no stages.
std::string speed_table(const std::vector<StageSpeed>& stages);

}  // namespace lighthouse
