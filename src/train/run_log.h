// The logs of a run for machines: metrics.jsonl and TensorBoard events.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "train/metrics.h"
#include "train/tensorboard_writer.h"

namespace lighthouse {

class RunLog {
 public:
  /// Goes on in `run_dir` after `step` steps. Throws std::system_error.
  RunLog(const std::filesystem::path& run_dir, int64_t step, bool tensorboard);

  /// A record that cannot be written (disk full) is lost: training goes on, and `warn` is told once.
  void write(const StepRecord& record, const std::function<void(const std::string&)>& warn);

 private:
  MetricsFile metrics_;
  std::optional<TensorBoardWriter> events_;
  bool failed_ = false;
};

}  // namespace lighthouse
