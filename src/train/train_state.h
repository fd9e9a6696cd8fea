// What a checkpoint holds besides tensors, and whether a run may go on from it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "config/run_config.h"
#include "data/sequence_loader.h"
#include "train/environment.h"
#include "train/key_changes.h"
#include "train/metrics.h"
#include "train/spike_detector.h"
#include "train/switch_tracker.h"

namespace lighthouse {

/// Everything that a run knows after a step, but weights and optimizer moments. There is no random state: initial
/// weights and the order of the data are functions of their seeds.
struct TrainState {
  explicit TrainState(const TrainingConfig& training) : switch_tracker(training) {}

  int64_t step = 0;            ///< steps done
  int64_t next_sequence = 0;   ///< data position: index of the next training sequence
  int64_t tokens = 0;          ///< trained on
  int64_t skipped_in_row = 0;  ///< last steps that were not applied
  double seconds = 0;          ///< of training, earlier starts included
  double train_seconds = 0;    ///< of its steps alone
  std::optional<ValidationRecord> last_validation;
  std::optional<StepRecord> unvalidated;  ///< of the last step, where a signal came before its validation ended
  SwitchTracker switch_tracker;
  SpikeDetector spike_detector;
  std::vector<KeyChange> changes;  ///< of all starts, in order
};

/// What the bits of a run depend on.
struct RunIdentity {
  RunConfig config;
  CorpusIdentity corpus;
  Environment environment;
  int64_t data_size = 1, context_size = 1;  ///< of the processes (parallel/mesh.h)
  std::string corpus_changes = {};          ///< since the run was saved, as far as known (corpus_record.h)
  std::vector<std::string> changing = {};   ///< keys that may differ from those of the checkpoint
};

/// The JSON object of a checkpoint.
std::string state_to_json(const TrainState& state, const RunIdentity& identity);

/// The corpus of the run. Its content is not known from versions that kept no checksum of it. Throws DamagedFile.
CorpusIdentity corpus_from_json(const std::string& json, const std::string& source);

/// Reads it back for a run that is configured as `now`. Throws InvalidArgument naming the keys that differ when it is
/// the checkpoint of another run: model, attention, training, optimizer and data may not change but for
/// `now.changing`; where the data lies, device, threads, recomputation, validation, checkpoints and logging may; and
/// the steps of both stages and the schedule, as long as the steps that are done stay what they are. Other data, or
/// data that is cut otherwise, is read from its beginning. `source` names the checkpoint. Throws DamagedFile when the
/// state is not one of ours. `warn` is told of changes, of other steps and of what makes the result differ in its last
/// bits.
TrainState state_from_json(const std::string& json, const RunIdentity& now, const std::string& source,
                           const std::function<void(const std::string&)>& warn);

}  // namespace lighthouse
