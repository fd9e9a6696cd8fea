// Runs that end too early, and what a run leaves when it is done.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cpp/train/train_support.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace lighthouse {

/// All that a finished run leaves behind and that no clock decides.
struct Outcome {
  Checkpoint checkpoint;
  nlohmann::json state;
  std::vector<nlohmann::json> metrics;
};

inline Outcome outcome(const RunConfig& config) {
  const std::filesystem::path run_dir = config.logging.run_dir;
  Outcome result{load_checkpoint(list_checkpoints(run_dir).front()), {}, read_timeless_metrics(run_dir)};
  result.state = nlohmann::json::parse(result.checkpoint.state_json);
  result.state.erase("seconds");
  result.state.erase("train_seconds");
  result.state.erase("config");  // holds the run folder
  return result;
}

inline void expect_same(const Outcome& actual, const Outcome& expected) {
  EXPECT_EQ(actual.checkpoint.step, expected.checkpoint.step);
  EXPECT_TRUE(same_tensors(actual.checkpoint.model, expected.checkpoint.model)) << "weights differ";
  EXPECT_TRUE(same_tensors(actual.checkpoint.optimizer, expected.checkpoint.optimizer)) << "moments differ";
  EXPECT_EQ(actual.state, expected.state);
  EXPECT_EQ(actual.metrics, expected.metrics);
}

inline TrainOptions with_hook(std::function<void(int64_t)> hook) {
  TrainOptions options;
  options.on_gradients = [hook = std::move(hook)](int64_t step, const NamedTensors&) { hook(step); };
  return options;
}

/// Runs until a signal comes in the step that begins after `step` steps.
inline TrainResult run_until_signal(const RunConfig& config, int64_t step, int signal_number = SIGTERM) {
  return train(config, with_hook([=](int64_t current) {
                 if (current == step) std::raise(signal_number);
               }));
}

struct Crash {};

/// Dies, as by an error that nobody foresaw, in the step that begins after `step` steps.
inline void run_until_crash(const RunConfig& config, int64_t step) {
  EXPECT_THROW(train(config, with_hook([=](int64_t current) {
                       if (current == step) throw Crash{};
                     })),
               Crash);
}

}  // namespace lighthouse
