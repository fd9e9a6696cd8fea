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
#include "parallel/gradient_exchange.h"
#include "parallel/mesh.h"
#include "train/console.h"
#include "train/optimizer.h"
#include "train/prefetcher.h"
#include "train/profile.h"
#include "train/run_folder.h"
#include "train/run_log.h"
#include "train/run_saver.h"
#include "train/shared_validation.h"
#include "train/step_exchange.h"
#include "train/step_meter.h"
#include "train/time_left.h"
#include "train/train_result.h"
#include "train/train_state.h"

namespace lighthouse {

struct TrainOptions {
  bool resume = true;               ///< go on from the newest whole checkpoint; false: refuse a run folder that has one
  std::vector<std::string> change;  ///< keys that may differ from those of that checkpoint (key_changes.h)
  std::ostream* log = nullptr;      ///< messages and progress for people; null: none
  std::function<size_t()> columns;  ///< `log` is a terminal so wide: draw a progress bar; empty: it is none
  bool handle_signals = true;       ///< kStopSignals end the run after the step or sequence, with a checkpoint
  ProfileOptions profile;           ///< run() writes a trace of some steps
  World* world = nullptr;           ///< the processes that train together; null: this one alone. Outlives the trainer
  /// Called with the parameters of every step, gradients filled in and not yet looked at: of this process, but that
  /// some of several processes' may be summed already. For tests.
  std::function<void(int64_t step, const NamedTensors& parameters)> on_gradients;
  int64_t bucket_elements = kBucketElements;  ///< of gradients that ranks exchange at once. For tests
};

/// A run in its folder, trained by this process or by all ranks of a world. Of these each has a Trainer and makes the
/// same calls; the first alone writes to the folder, which all must see, and to the log.
/// Files: config.toml (the resolved configuration), run.json (run_description.h), metrics.jsonl
/// (metrics.h), events.out.tfevents.* (tensorboard_writer.h), checkpoints/ (checkpoint.h), lock (run_folder.h).
class Trainer {
 public:
  /// Opens data, model and run folder, and goes back to the newest whole checkpoint. Before all of it fits together
  /// nothing but the folder and its lock is written. Throws ConfigError; InvalidArgument (no corpus, the folder of
  /// another run, no CUDA, ...); std::runtime_error when another process trains there or the disk has no room for a
  /// checkpoint; DamagedFile when no checkpoint is whole; std::system_error. On the other ranks Disagreement then,
  /// which is also thrown on all where they were started with different things.
  Trainer(const RunConfig& config, const TrainOptions& options);

  /// One optimizer step. Loss or gradients that are not finite leave weights and moments as they are; the record says
  /// why.
  StepRecord step();

  /// Steps, validation, logs and checkpoints until all steps are done or a signal came. Checkpoints are written behind
  /// the steps that follow; the last one is waited for. One that cannot be written is reported and tried again at the
  /// next interval. Throws std::runtime_error, saying what to try, when the last checkpoint cannot be written, memory
  /// ran out or five steps in a row were not finite; RankFailure when another rank is lost. A signal on one rank ends
  /// the run of all; a validation that it cuts short is made at the next start.
  TrainResult run();

  const SequenceLoader& loader() const { return loader_; }
  const Decoder& decoder() const { return decoder_; }
  const AdamW& optimizer() const { return *optimizer_; }  ///< of what this rank owns
  const TrainState& state() const { return state_; }

 private:
  using Clock = std::chrono::steady_clock;

  void take_run_folder(RunFolderUse use);
  void connect();
  std::optional<Checkpoint> load_newest();
  bool restore();
  void begin();
  void make_saver();
  void open_run_folder();
  void train_run();
  void train_steps();
  StepRecord next_record();
  void explain_out_of_memory(const std::string& where, const std::function<void()>& body);
  std::vector<Batch> take_batches(int64_t& num_targets);
  std::vector<at::Tensor> accumulate_gradients(const std::vector<Batch>& batches, int64_t num_targets,
                                               AttentionMode mode, GradientReduction& sums);
  StepTotals reduce_gradients(const std::vector<at::Tensor>& losses, GradientReduction& sums);
  Batch share_of_row(Batch whole) const;
  std::string what_is_not_finite(const StepTotals& totals) const;
  void apply_gradients(const StepRecord& record);
  std::optional<ValidationLosses> validation_losses(AttentionMode mode, int64_t step);
  void validate(StepRecord& record);
  void report_switch(StepRecord& record, const std::string& event);
  void check_run_folder();
  void log(StepRecord& record);
  TrainResult result() const;
  bool has_work() const { return state_.step < config_.training.steps || state_.unvalidated; }
  int stop_signal() const;
  double session_seconds() const;

  RunConfig config_;
  TrainOptions options_;
  Mesh mesh_;
  Console console_;
  SequenceLoader loader_;
  Decoder decoder_;
  RunIdentity identity_;
  std::optional<RunFolder> folder_;  ///< always there
  TrainState state_;
  BatchPrefetcher prefetcher_;
  StepMeter meter_;
  // What follows is there once all ranks are.
  std::optional<GradientExchange> gradients_;
  std::vector<std::vector<at::Tensor>> updated_;  ///< what ranks tell one another of an update
  std::optional<AdamW> optimizer_;
  std::optional<StepExchange> exchange_;
  std::optional<StepProfiler> profiler_;
  std::optional<RunLog> log_;      ///< of the first rank; empty when no step is left, like saver_
  std::optional<RunSaver> saver_;  ///< after folder_: the folder stays locked until the save has ended
  Clock::time_point start_;        ///< of this session
  double seconds_before_ = 0;      ///< of earlier sessions
  int stop_signal_ = 0;            ///< on which all ranks have agreed
  bool all_failed_ = false;        ///< all ranks have thrown, as one had no data
  std::string ranks_text_;         ///< of the last step whose ranks were measured
  TimeLeft time_left_;
};

/// Trainer(config, options).run().
TrainResult train(const RunConfig& config, const TrainOptions& options = {});

}  // namespace lighthouse
