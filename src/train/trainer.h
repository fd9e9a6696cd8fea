// Two-stage training: Lighthouse attention, or attention.method, for training.lighthouse_steps steps, then dense
// attention with the same weights, optimizer state, data position and schedule (docs/algorithm.md).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "data/sequence_loader.h"
#include "model/batch.h"
#include "model/decoder.h"
#include "train/console.h"
#include "train/optimizer.h"
#include "train/prefetcher.h"
#include "train/profile.h"
#include "train/run_folder.h"
#include "train/run_log.h"
#include "train/run_saver.h"
#include "train/step_meter.h"
#include "train/time_left.h"
#include "train/train_result.h"
#include "train/train_state.h"

namespace lighthouse {

struct TrainOptions {
  bool resume = true;               ///< go on from the newest whole checkpoint; false: refuse a run folder that has one
  std::ostream* log = nullptr;      ///< messages and progress for people; null: none
  std::function<size_t()> columns;  ///< `log` is a terminal so wide: draw a progress bar; empty: it is none
  bool handle_signals = true;       ///< kStopSignals end the run after the step, with a checkpoint
  ProfileOptions profile;           ///< run() writes a trace of some steps
  /// Called with the parameters of every step, gradients filled in and not yet looked at. For tests.
  std::function<void(int64_t step, const NamedTensors& parameters)> on_gradients;
};

/// A run in its folder. Files: config.toml (the resolved configuration), run.json (run_description.h), metrics.jsonl
/// (metrics.h), events.out.tfevents.* (tensorboard_writer.h), checkpoints/ (checkpoint.h), lock (run_folder.h).
class Trainer {
 public:
  /// Opens data, model and run folder, and goes back to the newest whole checkpoint. Before all of it fits together
  /// nothing but the folder and its lock is written. Throws ConfigError; InvalidArgument (no corpus, the folder of
  /// another run, no CUDA, ...); std::runtime_error when another process trains there or the disk has no room for a
  /// checkpoint; DamagedFile when no checkpoint is whole; std::system_error.
  Trainer(const RunConfig& config, const TrainOptions& options);

  /// One optimizer step. Loss or gradients that are not finite leave weights and moments as they are; the record says
  /// why.
  StepRecord step();

  /// Steps, validation, logs and checkpoints until all steps are done or a signal came. Checkpoints are written behind
  /// the steps that follow; the last one is waited for. One that cannot be written is reported and tried again at the
  /// next interval. Throws std::runtime_error, saying what to try, when the last checkpoint cannot be written, memory
  /// ran out or five steps in a row were not finite.
  TrainResult run();

  const SequenceLoader& loader() const { return loader_; }
  const Decoder& decoder() const { return decoder_; }
  const AdamW& optimizer() const { return optimizer_; }
  const TrainState& state() const { return state_; }

 private:
  using Clock = std::chrono::steady_clock;

  void restore();
  void begin();
  void open_run_folder();
  void train_steps();
  void explain_out_of_memory(const std::string& where, const std::function<void()>& body);
  double accumulate_gradients(const std::vector<Batch>& batches, AttentionMode mode);
  void validate(StepRecord& record);
  void report_switch(StepRecord& record, const std::string& event);
  void check_run_folder();
  void log(StepRecord& record);
  TrainResult result() const;
  bool stop_requested() const;
  bool is_last_of_stage(int64_t step) const;
  double session_seconds() const;

  RunConfig config_;
  TrainOptions options_;
  Console console_;
  SequenceLoader loader_;
  Decoder decoder_;
  AdamW optimizer_;
  RunIdentity identity_;
  RunFolder folder_;
  TrainState state_;
  BatchPrefetcher prefetcher_;
  StepMeter meter_;
  std::optional<StepProfiler> profiler_;  ///< always there once the run is restored
  std::optional<RunLog> log_;             ///< empty when no step is left, like saver_
  std::optional<RunSaver> saver_;         ///< after folder_: the folder stays locked until the save has ended
  Clock::time_point start_;               ///< of this session
  double seconds_before_ = 0;             ///< of earlier sessions
  TimeLeft time_left_;
};

/// Trainer(config, options).run().
TrainResult train(const RunConfig& config, const TrainOptions& options = {});

}  // namespace lighthouse
