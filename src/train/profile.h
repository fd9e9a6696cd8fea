// A trace of some training steps for chrome://tracing or Perfetto, by torch's own profiler.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>

#include "train/console.h"

namespace lighthouse {

struct ProfileOptions {
  std::filesystem::path file;  ///< JSON; empty: no trace
  int64_t first_step = 0;      ///< as metrics.jsonl counts, from 1; 0: the fourth of this start, when all is warm
  int64_t last_step = 0;       ///< included; 0: two after the first
};

/// Records the steps between its first and its last. The file is written when the last ends, whole or not at all.
class StepProfiler {
 public:
  /// `next_step`: the number of the first step of this start. Throws InvalidArgument when the folder of the file does
  /// not exist or the steps are not in order.
  StepProfiler(const ProfileOptions& options, at::Device device, int64_t next_step);
  ~StepProfiler();  ///< without finish() nothing is written
  StepProfiler(const StepProfiler&) = delete;
  StepProfiler& operator=(const StepProfiler&) = delete;

  void begin(int64_t step);  ///< before the step
  /// After the step. The console is told where the trace is, or why it could not be written: training goes on.
  void end(int64_t step, Console& console);
  /// The run ends. If the last step to profile was not reached, what was recorded is written.
  void finish(Console& console);

 private:
  ProfileOptions options_;
  at::Device device_;
  bool records_ = false;
  bool done_ = false;     ///< written, given up, or never wanted
  int64_t recorded_ = 0;  ///< steps
};

}  // namespace lighthouse
