// Runs of all kinds that are stopped at random steps end with the bits of those that are not.
#include <gtest/gtest.h>

#include <random>

#include "cpp/train/resumed_runs.h"
#include "support/environment_number.h"

namespace lighthouse {
namespace {

/// One of each.
template <typename Choice>
Choice any_of(std::mt19937_64& random, std::initializer_list<Choice> choices) {
  return *(choices.begin() + random() % choices.size());
}

/// A tiny run of a random kind: stages, layers that are computed again, ways of accumulating, scorers, packing.
RunConfig random_config(std::mt19937_64& random, const TemporaryFolder& folder) {
  RunConfig config = tiny_config(folder);
  config.training.lighthouse_steps = any_of<int64_t>(random, {0, 1, 5, 8, 11, 12});
  config.training.recompute = any_of(random, {Recompute::kNone, Recompute::kSelective, Recompute::kFull});
  config.training.offload = config.training.recompute == Recompute::kFull && random() % 2 == 0;
  config.training.gradient_accumulation = any_of<int64_t>(random, {1, 2, 3, 4});
  config.training.accumulation = any_of(random, {Accumulation::kSequence, Accumulation::kTree});
  config.training.batch_size = any_of<int64_t>(random, {1, 2});
  config.attention.scorer = any_of(random, {Scorer::kNorm, Scorer::kGla});
  config.checkpoint.interval = any_of<int64_t>(random, {1, 3, 5});
  config.checkpoint.asynchronous = random() % 2 == 0;
  config.optimizer.learning_rate = 1e-2;
  config.data.seed = random() % 1000;
  return config;
}

int64_t newest_step(const RunConfig& config) {
  const auto checkpoints = list_checkpoints(config.logging.run_dir);
  return checkpoints.empty() ? 0 : load_checkpoint(checkpoints.front(), CheckpointParts::kModel).step;
}

std::string text_of(const RunConfig& config) {
  std::ostringstream text;
  text << "stage one " << config.training.lighthouse_steps << ", recompute " << word(config.training.recompute)
       << ", offload " << config.training.offload << ", " << config.training.gradient_accumulation << " x "
       << config.training.batch_size << " " << word(config.training.accumulation) << ", scorer "
       << word(config.attention.scorer) << ", checkpoints each " << config.checkpoint.interval;
  return text.str();
}

// LIGHTHOUSE_TEST_STOPS says how many.
TEST(RandomStops, EndWithTheBitsOfAnUnbrokenRun) {
  std::mt19937_64 random(static_cast<uint64_t>(environment_number("LIGHTHOUSE_TEST_SEED", 1)));
  const int count = environment_number("LIGHTHOUSE_TEST_STOPS", 4);
  for (int stops = 0; stops < count && !testing::Test::HasFailure();) {
    const TemporaryFolder folder;
    RunConfig config = random_config(random, folder);
    SCOPED_TRACE(text_of(config));
    config.logging.run_dir = (folder / "unbroken").string();
    train(config);
    const Outcome expected = outcome(config);
    config.logging.run_dir = (folder / "stopped").string();
    for (;; ++stops) {
      const int64_t step = newest_step(config) + static_cast<int64_t>(random() % 6);
      if (step >= config.training.steps) break;
      random() % 2 == 0 ? static_cast<void>(run_until_signal(config, step)) : run_until_crash(config, step);
    }
    EXPECT_TRUE(train(config).complete);
    expect_same(outcome(config), expected);
  }
}

}  // namespace
}  // namespace lighthouse
