// What the switch from Lighthouse to dense attention does to the loss, and when the run is over it.
//
// Whether a run has recovered is read off its dense validation loss. Training losses of stage 1 are no measure of it:
// the selection looks ahead (docs/algorithm.md), so they lie below what the same weights reach on text without it.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "config/run_config.h"

namespace lighthouse {

/// Losses in nats per token; steps count from 1 (steps done). Empty until it is known.
struct SwitchReport {
  std::optional<double> pre_switch_loss;             ///< mean training loss of the last 20 steps of stage 1
  std::optional<double> loss_jump;                   ///< first training loss of stage 2, less pre_switch_loss
  std::optional<double> pre_switch_validation;       ///< with Lighthouse attention and the weights at the switch
  std::optional<double> validation_jump;             ///< the same weights and text with dense attention, less the above
  std::optional<int64_t> validation_recovered_step;  ///< the first with a dense loss below pre_switch_validation
  bool operator==(const SwitchReport&) const = default;
};
nlohmann::ordered_json to_json(const SwitchReport& report);
/// One line for the end of a run, "" when nothing is known; `lighthouse`: stage 1 had that attention. `gap` is the
/// Lighthouse less the dense validation loss of the last weights, where it was measured: below 0 they still lean on
/// what stage 1 lets them see.
std::string summary(const SwitchReport& report, int64_t lighthouse_steps, std::optional<double> gap,
                    bool lighthouse = true);

/// Follows the losses of a run. All that it knows is in to_json, so that a resumed run goes on with the same bits.
class SwitchTracker {
 public:
  explicit SwitchTracker(const TrainingConfig& training);

  /// The finite training loss of the step that brought the run to `step` steps done. Returns what to tell the user:
  /// the jump at the first step of stage 2; "" at other steps.
  std::string add_loss(int64_t step, double loss);
  /// Validation losses with the weights after `step` steps, with Lighthouse attention only where it was measured.
  /// Returns the jump at the switch, the recovery when it comes; "" at other steps.
  std::string add_validation(int64_t step, double dense, std::optional<double> lighthouse);

  const SwitchReport& report() const { return report_; }
  /// The mean of the last 20 steps of the stage, or of fewer where it has no more yet; empty before its first.
  std::optional<double> smoothed_loss() const;

  nlohmann::ordered_json to_json() const;
  /// Of a run after `step` steps, whose switch may have been planned for another step. Throws
  /// nlohmann::json::exception.
  void load_json(const nlohmann::json& json, int64_t step);

 private:
  std::string begin_dense(int64_t step, double loss);

  int64_t lighthouse_steps_;
  bool switches_;              ///< both stages have steps
  bool in_dense_ = false;      ///< a loss of stage 2 was added
  std::deque<double> losses_;  ///< training losses of the last 20 steps of the current stage
  SwitchReport report_;
};

}  // namespace lighthouse
