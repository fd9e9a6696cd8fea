// Steps whose loss or gradient norm stands out from those before: the sign of a learning rate that is too high, or of a
// warm-up that is too short.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>

#include "train/schedule.h"

namespace lighthouse {

/// Compares with the last 32 steps of the same stage, from the ninth of a stage on. A loss stands out that is above
/// their 90th percentile by more than twice the distance of their 10th and 90th, and above their median by more than a
/// tenth of it; a gradient norm, that is more than 10 times their median.
class SpikeDetector {
 public:
  /// The finite loss and gradient norm of a step. Returns what stands out, "" if nothing does.
  std::string add(Stage stage, double loss, double gradient_norm);

  int64_t count() const { return count_; }  ///< steps that stood out

  /// All that it knows, so that a resumed run goes on with the same bits.
  nlohmann::ordered_json to_json() const;
  void load_json(const nlohmann::json& json);  ///< throws nlohmann::json::exception

 private:
  Stage stage_ = Stage::kLighthouse;
  std::deque<double> losses_, gradient_norms_;  ///< [<= 32], oldest first
  int64_t count_ = 0;
};

}  // namespace lighthouse
