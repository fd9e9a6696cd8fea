// A signal in a validation ends the run after the sequence; what is left of the step comes at the next start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <sstream>

#include "cpp/train/resumed_runs.h"
#include "eval/validation.h"
#include "io/errors.h"
#include "train/shared_validation.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

class ValidationStop : public ::testing::Test {
 protected:
  RunConfig config(const std::string& run_dir) {
    RunConfig result = tiny_config(folder_);
    result.logging.run_dir = (folder_ / run_dir).string();
    return result;
  }
  RunConfig mixture(const std::string& run_dir) {
    RunConfig result = config(run_dir);
    const std::string other = (folder_ / "other.txt").string();
    write_bytes(other, tiny_corpus(9000));
    result.data.mixture = {result.data.path + "=2", other + "=1"};
    result.data.path.clear();
    return result;
  }
  TemporaryFolder folder_;
};

nlohmann::json state_of(const RunConfig& config) {
  return nlohmann::json::parse(load_checkpoint(list_checkpoints(config.logging.run_dir).front()).state_json);
}

std::string log_of(const RunConfig& config) {
  std::ostringstream log;
  TrainOptions options;
  options.log = &log;
  train(config, options);
  return log.str();
}

TEST_F(ValidationStop, OfASequenceIsHeardByTheNext) {
  const RunConfig run = config("run");
  const SequenceLoader loader(run.data, run.training.seq_len, run.model.vocab_size);
  const Decoder decoder(run.model, run.attention, 1);
  const auto losses_until = [&](int call, int& calls) {
    calls = 0;
    return shared_validation_losses(decoder, loader, 4, AttentionMode::kDense, Mesh(), [&](int64_t read) {
      EXPECT_EQ(read, ++calls);
      return calls == call ? SIGTERM : 0;
    });
  };
  int calls = 0;
  for (const int call : {1, 3}) {
    EXPECT_EQ(losses_until(call, calls).stop_signal, SIGTERM);
    EXPECT_EQ(calls, call) << "no sequence is read after it";
  }
  for (const int call : {4, 5}) {  // with the last sequence, and never
    const ValidationLosses losses = losses_until(call, calls);
    EXPECT_EQ(losses.stop_signal, 0);
    EXPECT_EQ(losses.all, validation_loss(decoder, loader, 4, AttentionMode::kDense).loss);
  }
}

TEST_F(ValidationStop, KeepsTheRecordForTheNextStart) {
  train(config("unbroken"));
  const RunConfig run = config("stopped");
  EXPECT_FALSE(run_until_signal(run, 4).complete);  // step 5 is validated
  ASSERT_EQ(read_metrics(run.logging.run_dir).size(), 5);
  EXPECT_FALSE(read_metrics(run.logging.run_dir).back().contains("validation_loss"));
  EXPECT_EQ(state_of(run)["step"], 5);
  EXPECT_EQ(state_of(run)["unvalidated"]["skipped"], "");

  EXPECT_FALSE(run_until_signal(run, 11).complete) << "all steps are done, the last validation is not";
  EXPECT_EQ(state_of(run)["step"], 12);
  EXPECT_EQ(read_metrics(run.logging.run_dir).size(), 12);
  const TrainResult result = train(run);
  EXPECT_TRUE(result.complete);
  EXPECT_TRUE(result.validation && result.validation->lighthouse);
  expect_same(outcome(run), outcome(config("unbroken")));

  EXPECT_TRUE(train(run).complete);  // nothing is left
  EXPECT_EQ(read_metrics(run.logging.run_dir).size(), 12);
}

TEST_F(ValidationStop, SaysWhatIsLeft) {
  const RunConfig run = config("run");
  std::ostringstream log;
  TrainOptions options = with_hook([](int64_t step) { step == 7 ? void(std::raise(SIGTERM)) : void(); });
  options.log = &log;
  train(run, options);
  EXPECT_THAT(log.str(), HasSubstr("the validation after step 8 is left to the next start of the run"));
  EXPECT_THAT(log.str(), HasSubstr("stopped by SIGTERM after step 8, which is saved"));
  EXPECT_THAT(log_of(run), Not(HasSubstr("is left to")));
}

TEST_F(ValidationStop, KeepsTheLossesOfAMixture) {
  train(mixture("unbroken"));
  const RunConfig run = mixture("stopped");
  EXPECT_FALSE(run_until_signal(run, 4).complete);
  EXPECT_FALSE(run_until_signal(run, 7).complete);  // of the switch
  EXPECT_TRUE(train(run).complete);
  expect_same(outcome(run), outcome(mixture("unbroken")));
}

// Logged, and not yet in a checkpoint.
TEST_F(ValidationStop, IsLoggedOnceHoweverOftenTheRunCrashes) {
  train(config("unbroken"));
  const RunConfig run = config("crashed");
  EXPECT_FALSE(run_until_signal(run, 4).complete);
  for (int crash = 0; crash < 2; ++crash) {
    run_until_crash(run, 5);
    EXPECT_EQ(read_metrics(run.logging.run_dir).size(), 5);
  }
  EXPECT_TRUE(train(run).complete);
  expect_same(outcome(run), outcome(config("unbroken")));
}

TEST_F(ValidationStop, OfADamagedStateIsRefused) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  const Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  const auto source = nlohmann::json{{"name", "corpus"}, {"epochs", 0.5}};
  for (const auto& [key, value] : {std::pair<const char*, nlohmann::json>{"loss", "low"},
                                   {"switches", 1},
                                   {"spike", nullptr},
                                   {"sources", nlohmann::json::array({source})},
                                   {"sources", 7}}) {
    nlohmann::json state = nlohmann::json::parse(checkpoint.state_json);
    state["unvalidated"][key] = value;
    Checkpoint changed = checkpoint;
    changed.state_json = state.dump();
    save_checkpoint(run.logging.run_dir, changed, 1);
    EXPECT_THROW(Trainer(run, {}), DamagedFile) << key << " " << value;
  }
}

}  // namespace
}  // namespace lighthouse
