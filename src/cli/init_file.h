// The configuration that `lighthouse init` writes, with the reason of each value.
#pragma once

#include <string>

#include "cli/plan_device.h"
#include "config/run_config.h"
#include "plan/starting_point.h"

namespace lighthouse::cli {

struct InitModel {
  std::string name;  ///< as it was given: a folder of transformers, or a preset
  ModelConfig config;
  bool is_folder = false;
  bool trained = false;       ///< the folder has weights
  int64_t positions = 0;      ///< that it was made for; 0: not known
  bool rope_changed = false;  ///< config has longer_rope_theta, for more positions
};

struct InitCorpus {
  DataConfig data;
  std::string why_fraction;  ///< not empty: why validation_path is not the one that was prepared
  bool is_text = false;      ///< its tokens are bytes
  int64_t tokens = 0;        ///< to train on
  int64_t validation_sequences = 0;
};

/// A base of RoPE for sequences longer than those of the model: the slowest pair of channels turns as far in them as it
/// did before.
double longer_rope_theta(const InitModel& model, int64_t seq_len);

std::string train_command(const std::string& file, int64_t world_size);

/// The text of the file. `output`: its name, which the run folder gets too.
std::string init_file(const InitModel& model, const InitCorpus& corpus, const PlanDevice& device,
                      const std::string& output, const StartingPoint& start);

}  // namespace lighthouse::cli
