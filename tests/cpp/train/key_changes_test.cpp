// A run that goes on with other values of keys that its start names.
#include "train/key_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "config/schema.h"
#include "cpp/train/resumed_runs.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class KeyChanges : public ::testing::Test {
 protected:
  RunConfig config(const std::string& run_dir = "run") {
    RunConfig result = tiny_config(folder_);
    result.optimizer.schedule = Schedule::kConstant;
    result.validation.interval = 4;
    result.logging.run_dir = (folder_ / run_dir).string();
    return result;
  }
  /// Of a start that may change `keys`, until a signal after `stop` steps.
  TrainResult go_on(const RunConfig& run, const std::vector<std::string>& keys, int64_t stop = 1000) {
    log_.str("");
    TrainOptions options = with_hook([=](int64_t step) {
      if (step == stop - 1) std::raise(SIGTERM);
    });
    options.change = keys;
    options.log = &log_;
    return train(run, options);
  }
  std::string refusal(const RunConfig& run, const std::vector<std::string>& keys) {
    return message_of<InvalidArgument>([&] { go_on(run, keys); });
  }
  nlohmann::json description(const RunConfig& run) {
    return nlohmann::json::parse(read_bytes(fs::path(run.logging.run_dir) / "run.json"));
  }

  TemporaryFolder folder_;
  std::ostringstream log_;
};

TEST_F(KeyChanges, HoldForTheStepsToCome) {
  RunConfig run = config();
  train(config("unbroken"));
  run_until_signal(run, 4);
  run.attention.topk = 8;
  run.attention.full_attention_layers = {};
  EXPECT_THAT(refusal(run, {}), AllOf(HasSubstr("attention.topk (4 in the checkpoint, 8 now)"), HasSubstr("--change")));
  EXPECT_THAT(refusal(run, {"attention.topk"}),
              AllOf(HasSubstr("full_attention_layers ([0] in"), Not(HasSubstr("topk ("))));
  const std::vector<std::string> keys = {"attention.topk", "attention.full_attention_layers"};
  EXPECT_EQ(go_on(run, keys, 7).step, 7);
  EXPECT_THAT(log_.str(), HasSubstr("the run goes on with attention.topk (4 in the checkpoint, 8 now), "
                                    "attention.full_attention_layers ([0] in the checkpoint, [] now)\n"));
  EXPECT_TRUE(go_on(run, keys).complete) << "the same command goes on with what it began";
  EXPECT_THAT(log_.str(), Not(HasSubstr("goes on with")));
  const auto metrics = read_timeless_metrics(run.logging.run_dir),
             others = read_timeless_metrics(config("unbroken").logging.run_dir);
  ASSERT_EQ(metrics.size(), others.size());
  for (size_t step = 0; step < metrics.size(); ++step) EXPECT_EQ(metrics[step] == others[step], step < 5) << step;
  const nlohmann::json changes = {
      {{"step", 5}, {"key", "attention.topk"}, {"before", "4"}, {"after", "8"}},
      {{"step", 5}, {"key", "attention.full_attention_layers"}, {"before", "[0]"}, {"after", "[]"}}};
  EXPECT_EQ(outcome(run).state["changes"], changes);
  EXPECT_EQ(description(run)["changes"], changes);
}

TEST_F(KeyChanges, InterruptedAnywhereHaveTheSameBits) {
  const auto changed = [&](const std::string& name) {
    RunConfig run = config(name);
    run.attention.topk = 8;
    run.optimizer.learning_rate *= 0.5;
    return run;
  };
  const std::vector<std::string> keys = {"attention.topk", "optimizer.learning_rate"};
  run_until_signal(config("whole"), 4);
  go_on(changed("whole"), keys);
  const Outcome expected = outcome(changed("whole"));
  for (const int64_t stop : {6, 8, 11}) {
    const std::string name = std::to_string(stop);
    run_until_signal(config(name), 4);
    EXPECT_FALSE(go_on(changed(name), keys, stop).complete);
    EXPECT_TRUE(train(changed(name)).complete) << "what has changed need not be named again";
    expect_same(outcome(changed(name)), expected);
  }
}

// Attention keys of stage one say nothing of stage two.
TEST_F(KeyChanges, OfWhatIsNotUsedChangeNoBit) {
  RunConfig run = config(), unbroken = config("unbroken");
  run.validation.interval = unbroken.validation.interval = 0;
  train(unbroken);
  run_until_signal(run, 9);
  run.attention.topk = 8;
  run.optimizer.warmup_steps = 2;
  go_on(run, {"attention.topk", "optimizer.warmup_steps"});
  EXPECT_TRUE(same_tensors(outcome(run).checkpoint.model, outcome(unbroken).checkpoint.model));
  EXPECT_TRUE(same_tensors(outcome(run).checkpoint.optimizer, outcome(unbroken).checkpoint.optimizer));
}

TEST_F(KeyChanges, OfTheDataReadItFromTheBeginning) {
  RunConfig run = config();
  write_bytes(folder_ / "held_out.txt", tiny_corpus(5000));
  run.data.validation_path = (folder_ / "held_out.txt").string();
  run_until_signal(run, 4);  // 20 sequences of 64 tokens
  run.training.seq_len = 128;
  run.attention.topk = 8;
  run.training.gradient_accumulation = 1;
  const std::vector<std::string> keys = {"training.seq_len", "attention.topk", "training.gradient_accumulation"};
  EXPECT_EQ(go_on(run, keys, 7).step, 7);
  EXPECT_THAT(
      log_.str(),
      HasSubstr("training.gradient_accumulation (2 in the checkpoint, 1 now); its data is read from the beginning\n"));
  EXPECT_TRUE(go_on(run, keys).complete);
  const nlohmann::json state = outcome(run).state;
  EXPECT_EQ(state["next_sequence"], 7 * 2);
  EXPECT_EQ(state["tokens"], 20 * 64 + 14 * 128);
}

TEST_F(KeyChanges, OfTheTextTakeAnotherOne) {
  RunConfig run = config();
  run_until_signal(run, 4);
  write_bytes(folder_ / "other.txt", tiny_corpus(30000));
  run.data.path = (folder_ / "other.txt").string();
  EXPECT_THAT(refusal(run, {"optimizer.beta1"}), HasSubstr("is not the one of the run"));
  EXPECT_TRUE(go_on(run, {"data.path"}).complete);
  EXPECT_EQ(outcome(run).state["next_sequence"], 7 * 4);
}

TEST_F(KeyChanges, OfNothingAreNone) {
  const RunConfig run = config();
  go_on(run, {"attention.topk"}, 5);
  EXPECT_THAT(log_.str(), HasSubstr("the run begins with this start, so that no key of it changes"));
  go_on(run, {"attention.topk", "data.path"});
  EXPECT_THAT(log_.str(), Not(HasSubstr("goes on with")));
  train(config("unbroken"));
  expect_same(outcome(run), outcome(config("unbroken")));
}

TEST_F(KeyChanges, DoNotTrainOnTextThatWasHeldOut) {
  RunConfig run = config();
  run_until_signal(run, 4);
  run.training.seq_len = 128;
  EXPECT_THAT(refusal(run, {"training.seq_len"}),
              AllOf(HasSubstr("training.seq_len goes from 64 to 128"), HasSubstr("give data.validation_path")));
  run.data.validation_fraction = 0;
  EXPECT_TRUE(go_on(run, {"training.seq_len", "data.validation_fraction"}).complete);
}

TEST_F(KeyChanges, ALeftValidationIsNotMadeByAnotherConfiguration) {
  RunConfig run = config();
  run.validation.interval = 5;
  run_until_signal(run, 4);  // and the validation of step 5 is left
  ASSERT_FALSE(outcome(run).state["unvalidated"].is_null());
  run.attention.topk = 8;
  EXPECT_TRUE(go_on(run, {"attention.topk"}).complete);
  const std::vector<nlohmann::json> metrics = read_metrics(run.logging.run_dir);
  ASSERT_EQ(metrics.size(), 12U);
  EXPECT_FALSE(metrics[4].contains("validation_loss"));
  EXPECT_TRUE(metrics[9].contains("validation_loss"));
}

TEST(ChangeableKeys, AreThoseThatStepsToComeAloneDependOn) {
  check_changeable(
      {"attention.topk", "training.seq_len", "data.mixture", "optimizer.learning_rate", "model.rope_theta"});
  for (const char* kept :
       {"model.dim", "attention.scorer", "training.lighthouse_steps", "training.seed", "logging.run_dir"}) {
    EXPECT_THAT(message_of<ConfigError>([&] {
                  check_changeable({"attention.topk", kept});
                }),
                AllOf(HasSubstr(std::string(kept) + ": a run keeps it"), HasSubstr("[attention] but scorer")));
  }
  EXPECT_EQ(message_of<ConfigError>([] { check_changeable({"attention.topc"}); }),
            "attention.topc: unknown key; did you mean attention.topk?");
}

}  // namespace
}  // namespace lighthouse
