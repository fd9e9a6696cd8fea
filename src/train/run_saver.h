// When the checkpoints of a run are written, and what becomes of one that cannot be.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "train/checkpoint_saver.h"
#include "train/console.h"
#include "train/run_folder.h"
#include "train/train_state.h"

namespace lighthouse {

/// Saves a run every checkpoint.interval steps, behind the steps that follow, and at its end. A checkpoint that cannot
/// be written, for whatever reason, is reported and tried again at the next interval.
class RunSaver {
 public:
  struct Tensors {                       // live
    NamedTensors model;                  ///< all parameters and buffers, on every rank
    std::vector<TensorRange> optimizer;  ///< the moments of this rank
    /// Called on all ranks before a save: makes `model` what it is after the step on each, where that is left to it.
    std::function<void()> complete = {};
  };
  /// For a run whose `state` is saved already, or is its start. Folder, state, identity and console must stay. Warns
  /// where the disk has room for fewer checkpoints than checkpoint.keep. Throws std::runtime_error, saying what is
  /// needed, where disk or memory do not hold one.
  ///
  /// Of several ranks all make one, and call the same functions after the same steps; whatever of a save fails on one
  /// rank, has failed on all of them.
  RunSaver(const RunFolder& folder, const RunConfig& config, const Tensors& tensors, const TrainState& state,
           const RunIdentity& identity, Console& console, const CheckpointRanks& ranks = {});

  /// After this the tensors may be written to on the current stream.
  void finish_copy() { saver_->finish_copy(); }

  /// After a step: reports the end of the save under way, and begins one of this step where it is due.
  void after_step();
  /// Waits for the save under way, and reports it where it failed.
  void note_end();
  /// Saves the last step, unless it is saved, and waits for that. Throws std::runtime_error, saying what to do, when it
  /// cannot be written or the folder is gone.
  void save_last();
  /// In a handler of `error`, which ends the run but not what its steps before it have come to: throws it, together
  /// with what became of saving them.
  [[noreturn]] void fail_saved(const std::exception& error);

  /// "step 12", the newest that is saved, or "the start".
  std::string resume_hint() const;

 private:
  void save();
  void start();
  std::string end();

  const RunFolder& folder_;
  CheckpointConfig config_;
  const TrainState& state_;
  const RunIdentity& identity_;
  Console& console_;
  std::function<void()> complete_;        ///< of Tensors
  std::optional<CheckpointSaver> saver_;  ///< always there
  int64_t saved_step_;                    ///< of the newest checkpoint; 0: none
  bool starts_unvalidated_;               ///< the run was opened from it, and it lacks the validation of its step
};

}  // namespace lighthouse
