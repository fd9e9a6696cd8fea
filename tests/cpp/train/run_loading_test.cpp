#include "train/run_loading.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/schema.h"
#include "cpp/train/train_support.h"
#include "lighthouse/check.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(LoadRun, GivesTheConfigurationAndTheNewestWeights) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  train(config);
  const LoadedRun run = load_run(config.logging.run_dir);
  EXPECT_EQ(run.config, config);
  EXPECT_EQ(run.step, 12);
  EXPECT_TRUE(
      same_tensors(run.decoder.parameters(), load_checkpoint(list_checkpoints(config.logging.run_dir)[0]).model));
}

TEST(LoadRun, ReadsARunThatIsInProgress) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  config.checkpoint.asynchronous = false;  // step 6 is whole before step 7 begins
  TrainOptions options;
  int64_t loaded_step = -1;
  options.on_gradients = [&](int64_t step, const NamedTensors&) {
    if (step == 7) loaded_step = load_run(config.logging.run_dir).step;
  };
  train(config, options);
  EXPECT_EQ(loaded_step, 6);
}

TEST(LoadRun, PassesOverADamagedCheckpoint) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  train(config);
  write_bytes(list_checkpoints(config.logging.run_dir)[0] / "model.safetensors", "short");
  std::vector<std::string> warnings;
  const LoadedRun run =
      load_run(config.logging.run_dir, {}, {}, [&](const std::string& text) { warnings.push_back(text); });
  EXPECT_EQ(run.step, 9);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("step 12")));
}

// Moments are two thirds of a checkpoint, and nothing to whoever reads the model.
TEST(LoadRun, ReadsTheModelAlone) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  train(config);
  const fs::path moments = list_checkpoints(config.logging.run_dir)[0] / "optimizer.safetensors";
  std::string bytes = read_bytes(moments);
  bytes.back() = static_cast<char>(~bytes.back());
  write_bytes(moments, bytes);
  EXPECT_EQ(load_run(config.logging.run_dir).step, 12);
  EXPECT_EQ(load_latest_checkpoint(config.logging.run_dir, [](const std::string&) {})->step, 9);
}

TEST(LoadRun, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  const auto message = [&](const fs::path& path) { return message_of<InvalidArgument>([&] { load_run(path); }); };
  EXPECT_THAT(message(folder / "nothing"), HasSubstr("no such folder"));
  EXPECT_THAT(message(folder.path()), HasSubstr("config.toml"));
  write_bytes(folder / "config.toml", to_toml(RunConfig{}));
  EXPECT_THAT(message(folder.path()), HasSubstr("no checkpoint yet"));
  write_bytes(folder / "config.toml", "[model]\ndim = 0\n");
  EXPECT_THAT(message_of<ConfigError>([&] { load_run(folder.path()); }), HasSubstr("config.toml:2: model.dim"));
}

}  // namespace
}  // namespace lighthouse
