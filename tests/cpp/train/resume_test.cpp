// A resumed run has the bits of an unbroken one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <thread>

#include "cpp/train/resumed_runs.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class Resume : public ::testing::Test {
 protected:
  RunConfig config(const std::string& run_dir) {
    RunConfig result = tiny_config(folder_);
    result.attention.scorer = Scorer::kGla;  // which has weights of its own to keep
    result.logging.run_dir = (folder_ / run_dir).string();
    return result;
  }
  Outcome unbroken() {
    train(config("unbroken"));
    return outcome(config("unbroken"));
  }
  TemporaryFolder folder_;
};

TEST_F(Resume, AfterASignalAtAnyStepEqualsTheUnbrokenRun) {
  const Outcome expected = unbroken();
  for (const int64_t step : {0, 1, 4, 6, 7, 8, 9, 10}) {  // the switch is between 7 and 8
    const RunConfig run = config("stopped" + std::to_string(step));
    const TrainResult stopped = run_until_signal(run, step, step % 2 == 0 ? SIGTERM : SIGINT);
    EXPECT_FALSE(stopped.complete);
    EXPECT_EQ(stopped.step, step + 1) << "the step in progress is finished and saved";
    EXPECT_TRUE(train(run).complete);
    expect_same(outcome(run), expected);
  }
}

TEST_F(Resume, AroundTheSwitchFromAControlEqualsTheUnbrokenRun) {
  for (const AttentionMethod method : {AttentionMethod::kShort, AttentionMethod::kWindow}) {
    const auto control = [&](const std::string& run_dir) {
      return with_control(config(std::string(word(method)) + run_dir), method);
    };
    train(control("unbroken"));
    const Outcome expected = outcome(control("unbroken"));
    for (const int64_t step : {5, 7, 8}) {
      const RunConfig run = control("stopped" + std::to_string(step));
      EXPECT_FALSE(run_until_signal(run, step).complete);
      EXPECT_TRUE(train(run).complete);
      expect_same(outcome(run), expected);
    }
    RunConfig other = control("unbroken");
    other.attention.span = 32;
    EXPECT_THAT([&] { train(other); }, ::testing::ThrowsMessage<InvalidArgument>(HasSubstr("attention.span (16 in")));
  }
}

TEST_F(Resume, AfterACrashAtAnyStepEqualsTheUnbrokenRun) {
  const Outcome expected = unbroken();
  for (const int64_t step : {0, 2, 3, 5, 8, 11}) {
    const RunConfig run = config("crashed" + std::to_string(step));
    run_until_crash(run, step);
    EXPECT_EQ(read_metrics(run.logging.run_dir).size(), step);
    std::ostringstream log;
    TrainOptions options;
    options.log = &log;
    train(run, options);
    if (step >= 3) {
      EXPECT_THAT(log.str(), HasSubstr("resumed at step " + std::to_string(step / 3 * 3) + "\n"));
    }
    expect_same(outcome(run), expected);
  }
}

TEST_F(Resume, ManyTimesInOneRunEqualsTheUnbrokenRun) {
  const Outcome expected = unbroken();
  const RunConfig run = config("often");
  for (int64_t step = 1; step < 12; step += 2) run_until_signal(run, step);
  train(run);
  expect_same(outcome(run), expected);
}

TEST_F(Resume, FromAnEarlierCheckpointWhenTheNewestIsDamaged) {
  const Outcome expected = unbroken();
  const RunConfig run = config("damaged");
  run_until_crash(run, 10);
  const fs::path newest = list_checkpoints(run.logging.run_dir).front();
  std::string bytes = read_bytes(newest / "optimizer.safetensors");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_bytes(newest / "optimizer.safetensors", bytes);
  std::ostringstream log;
  TrainOptions options;
  options.log = &log;
  train(run, options);
  EXPECT_THAT(log.str(), AllOf(HasSubstr("warning: checkpoint of step 9 is damaged"), HasSubstr("resumed at step 6")));
  expect_same(outcome(run), expected);
}

TEST_F(Resume, KeepsTheCountOfBadSteps) {
  const RunConfig run = config("bad");
  const auto spoil = [](int64_t stop) {
    TrainOptions options;
    options.on_gradients = [=](int64_t step, const NamedTensors& parameters) {
      parameters[0].second.grad()[0][0].fill_(NAN);
      if (step == stop) std::raise(SIGTERM);
    };
    return options;
  };
  EXPECT_EQ(train(run, spoil(2)).step, 3);
  EXPECT_THAT(message_of<std::runtime_error>([&] { train(run, spoil(99)); }), HasSubstr("step 5"));
}

TEST_F(Resume, SignalHandlersAreThoseOfBeforeAfterTheRun) {
  static volatile std::sig_atomic_t received = 0;
  std::signal(SIGTERM, [](int) { received = 1; });
  run_until_signal(config("handlers"), 1);
  EXPECT_EQ(received, 0);
  std::raise(SIGTERM);
  EXPECT_EQ(received, 1);
  std::signal(SIGTERM, SIG_DFL);
}

TEST_F(Resume, ALaterSignalEndsTheProcessAtOnce) {
  const RunConfig run = config("twice");
  const std::string text = run_in_child([&] {
    train(run, with_hook([](int64_t step) {
            if (step != 2) return;
            std::raise(SIGINT);
            std::this_thread::sleep_for(std::chrono::milliseconds(1100));
            std::raise(SIGINT);
          }));
    return std::string("went on");
  });
  EXPECT_EQ(text, " [child ended with status 2]");  // killed by SIGINT
}

// As timeout(1) does: to the process, then to its group.
TEST_F(Resume, SignalsAtOnceAreOneRequest) {
  const TrainResult result = train(config("at_once"), with_hook([](int64_t step) {
                                     if (step == 2) std::raise(SIGTERM), std::raise(SIGTERM), std::raise(SIGINT);
                                   }));
  EXPECT_EQ(result.step, 3);
  EXPECT_FALSE(result.complete);
}

/// Names, sizes and contents of all files but the lock.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().filename() != "lock") files[entry.path()] = read_bytes(entry.path());
  }
  return files;
}

/// Why a run does not go on so; its folder stays as it is.
std::string refusal(const RunConfig& run, const std::function<void(RunConfig&)>& change,
                    const TrainOptions& options = {}) {
  const auto before = contents(run.logging.run_dir);
  RunConfig changed = run;
  change(changed);
  std::string message = message_of<InvalidArgument>([&] { train(changed, options); });
  EXPECT_EQ(contents(run.logging.run_dir), before) << message;
  EXPECT_THAT(message, HasSubstr(run.logging.run_dir));
  return message;
}

TEST_F(Resume, WithAnotherConfigurationIsRefusedNamingTheKeys) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  const auto refused = [&](const std::function<void(RunConfig&)>& change, const TrainOptions& options = {}) {
    return refusal(run, change, options);
  };
  EXPECT_THAT(refused([](RunConfig& changed) {
                changed.model.dim = 64;
                changed.optimizer.beta1 = 0.5;
                changed.validation.interval = 3;
              }),
              AllOf(HasSubstr("model.dim (32 in the checkpoint, 64 now)"), HasSubstr("optimizer.beta1 (0.9 in"),
                    Not(HasSubstr("validation")), Not(HasSubstr("model.num_layers"))));
  EXPECT_THAT(refused([](RunConfig& changed) { changed.training.steps = 20; }), HasSubstr("training.steps (12 in"))
      << "all of a cosine depends on the steps";
  EXPECT_THAT(refused([](RunConfig& changed) { changed.attention.full_attention_layers = {}; }),
              HasSubstr("attention.full_attention_layers ([0] in the checkpoint, [] now)"));
  EXPECT_THAT(refused([](RunConfig& changed) { changed.data.seed = 2; }), HasSubstr("data.seed"));
  write_bytes(folder_ / "other.txt", tiny_corpus(30000));
  EXPECT_THAT(refused([&](RunConfig& changed) { changed.data.path = (folder_ / "other.txt").string(); }),
              AllOf(HasSubstr("other.txt"), HasSubstr("corpus.txt")));
  std::string text = tiny_corpus();
  text[20000] ^= 1;
  write_bytes(folder_ / "spoiled.txt", text);
  EXPECT_THAT(refused([&](RunConfig& changed) { changed.data.path = (folder_ / "spoiled.txt").string(); }),
              AllOf(HasSubstr("not the same bytes"), HasSubstr("spoiled.txt")));
  TrainOptions never;
  never.resume = false;
  EXPECT_THAT(refused([](RunConfig&) {}, never), HasSubstr("holds a run already"));
}

/// Begun as `before`, stopped after `step` steps (or at its end), gone on with `after`: as if begun so.
TEST_F(Resume, WithOtherStepsToComeEqualsTheRunThatWasBegunSo) {
  RunConfig base = config("base");
  base.optimizer.schedule = Schedule::kConstant;
  base.validation.interval = 4;
  const auto with = [&](const std::function<void(RunConfig&)>& change, const std::string& name) {
    RunConfig changed = base;
    change(changed);
    changed.logging.run_dir = (folder_ / name).string();
    return changed;
  };
  struct Case {
    const char* name;
    std::function<void(RunConfig&)> before, after;
    int64_t stop;
  };
  const Case cases[] = {
      {"longer", [](auto&) {}, [](auto& c) { c.training.steps = 20; }, 12},
      {"shorter", [](auto&) {}, [](auto& c) { c.training.steps = 10; }, 9},
      {"switch_put_off", [](auto&) {}, [](auto& c) { c.training.lighthouse_steps = 11; }, 6},
      {"switch_now", [](auto& c) { c.training.lighthouse_steps = 12; },
       [](auto& c) { c.training.lighthouse_steps = 8; }, 7},
      {"decay_put_off", [](auto& c) { c.optimizer.schedule = Schedule::kWsd; },
       [](auto& c) { c.optimizer.schedule = Schedule::kWsd, c.optimizer.decay_steps = 5, c.training.steps = 20; }, 10},
      {"cooled_down", [](auto&) {},
       [](auto& c) { c.optimizer.schedule = Schedule::kWsd, c.optimizer.decay_steps = 4, c.training.steps = 16; }, 12},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    const std::string name = one.name;
    const RunConfig begun = with(one.before, name), after = with(one.after, name),
                    alone = with(one.after, name + "_alone");
    train(alone);
    if (one.stop == begun.training.steps) {
      EXPECT_TRUE(train(begun).complete);
    } else {
      run_until_signal(begun, one.stop - 1);
    }
    std::ostringstream log;
    TrainOptions options;
    options.log = &log;
    EXPECT_TRUE(train(after, options).complete);
    EXPECT_THAT(log.str(), HasSubstr("goes on with other steps to come: "));
    expect_same(outcome(after), outcome(alone));
  }
}

TEST_F(Resume, WithOtherStepsThanWereDoneIsRefused) {
  RunConfig run = config("run");
  run.optimizer.schedule = Schedule::kWsd;
  run.optimizer.decay_steps = 3;
  run_until_signal(run, 9);  // 10 of 12 steps are done, 8 of stage 1, one of the decay
  const auto refused = [&](const std::function<void(RunConfig&)>& change) { return refusal(run, change); };
  EXPECT_THAT(refused([](RunConfig& c) { c.training.steps = 9; }), HasSubstr("10 steps are done, more than"));
  EXPECT_THAT(
      refused([](RunConfig& c) { c.training.steps = 13; }),
      AllOf(HasSubstr("training.steps (12 in"), HasSubstr("those after step 9 would have another learning rate")));
  EXPECT_THAT(refused([](RunConfig& c) { c.training.lighthouse_steps = 9; }),
              HasSubstr("of 10 steps that are done 8 are of stage 1, and 9 would be"));
  EXPECT_THAT(refused([](RunConfig& c) { c.optimizer.min_learning_rate_ratio = 0.5; }), HasSubstr("after step 9"));
  EXPECT_THAT(refused([](RunConfig& c) { c.optimizer.schedule = Schedule::kConstant; }), HasSubstr("schedule"));
}

TEST_F(Resume, MayChangeWhatDoesNotChangeTheResult) {
  const Outcome expected = unbroken();
  RunConfig run = config("run");
  run_until_signal(run, 4);
  fs::create_directories(folder_ / "moved");
  fs::rename(run.data.path, folder_ / "moved" / "corpus.txt");
  run.data.path = (folder_ / "moved" / "corpus.txt").string();
  run.checkpoint.interval = 1;
  run.checkpoint.keep = 5;
  run.logging.tensorboard = false;
  run.training.recompute = Recompute::kFull;
  run.training.recompute_layers = 2;
  run.training.offload = true;
  run.training.offload_layers = 1;
  run.training.offload_optimizer = true;
  run.training.deterministic = true;
  train(run);
  expect_same(outcome(run), expected);
  EXPECT_EQ(list_checkpoints(run.logging.run_dir).size(), 5);
}

TEST_F(Resume, OnTheHostOrTheDeviceTheWeightsHaveTheSameBits) {
  for (const Scorer scorer : {Scorer::kGla, Scorer::kDilated}) {
    const auto placed = [&](const std::string& run_dir, bool on_host) {
      RunConfig run = config(run_dir + std::string(word(scorer)));
      run.attention.scorer = scorer;
      run.training.precision = Precision::kBf16;
      run.training.offload_weights = run.training.offload_optimizer = on_host;
      run.checkpoint.asynchronous = scorer == Scorer::kGla;
      return run;
    };
    train(placed("device", false));
    const Outcome expected = outcome(placed("device", false));
    train(placed("host", true));
    expect_same(outcome(placed("host", true)), expected);
    for (const bool on_host : {true, false}) {  // before the signal; after it, the other way
      run_until_signal(placed("turned", on_host), 4);
      train(placed("turned", !on_host));
      expect_same(outcome(placed("turned", on_host)), expected);
      fs::remove_all(placed("turned", on_host).logging.run_dir);
    }
  }
}

TEST_F(Resume, WithAnotherNumberOfThreadsIsWarnedAbout) {
  RunConfig run = config("run");
  run_until_signal(run, 4);
  const std::string log = run_in_child([&] {  // whose threads end with it
    RunConfig changed = run;
    changed.training.threads = 2;
    std::ostringstream text;
    TrainOptions options;
    options.log = &text;
    Trainer trainer(changed, options);
    return text.str();
  });
  EXPECT_THAT(log, HasSubstr("warning: the run goes on with 2 threads instead of 1"));
}

// Another machine, another installation: the same device "cpu" or "cuda:0", and other bits.
TEST_F(Resume, WithOtherHardwareOrVersionsIsWarnedAbout) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  const auto warning = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json state = nlohmann::json::parse(checkpoint.state_json);
    state[key] = value;
    Checkpoint changed = checkpoint;
    changed.state_json = state.dump();
    save_checkpoint(run.logging.run_dir, changed, 2);
    std::ostringstream text;
    TrainOptions options;
    options.log = &text;
    Trainer trainer(run, options);
    return text.str();
  };
  for (const char* key : {"processor", "lighthouse", "torch", "cudnn"}) {
    EXPECT_THAT(warning(key, "other"), AllOf(HasSubstr("warning: the run goes on with "),
                                             HasSubstr(" instead of other"), HasSubstr("differ in its last bits")))
        << key;
    EXPECT_EQ(warning(key, ""), "") << "a checkpoint of a version that did not record it";
  }
  EXPECT_THAT(warning("device", "cuda:3"), HasSubstr("with device cpu instead of cuda:3: the result"));
}

TEST_F(Resume, ACheckpointFromBeforeSpikesAndTrainSecondsGoesOn) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  nlohmann::json state = nlohmann::json::parse(checkpoint.state_json);
  state.erase("spikes");
  state.erase("train_seconds");
  state["switch"]["recovered_step"] = nullptr;  // what training losses used to decide
  checkpoint.state_json = state.dump();
  checkpoint.step = 6;
  save_checkpoint(run.logging.run_dir, checkpoint, 2);
  EXPECT_TRUE(train(run).complete);
}

// 12.9 was taken for 12, and what 1e300 is as an integer is undefined.
TEST_F(Resume, NumbersOfAStateMustBeWhole) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  const Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  for (const char* place :
       {"/step", "/next_sequence", "/tokens", "/skipped_in_row", "/version", "/threads", "/data_size", "/context_size",
        "/spikes/count", "/spikes/stage", "/switch/validation_recovered_step"}) {
    for (const nlohmann::json& number : {nlohmann::json(12.9), nlohmann::json(1e300), nlohmann::json(-1)}) {
      nlohmann::json state = nlohmann::json::parse(checkpoint.state_json);
      state[nlohmann::json::json_pointer(place)] = number;
      Checkpoint changed = checkpoint;
      changed.state_json = state.dump();
      save_checkpoint(run.logging.run_dir, changed, 1);
      EXPECT_THAT(message_of<DamagedFile>([&] { Trainer trainer(run, {}); }),
                  AllOf(HasSubstr("step 5"), HasSubstr("is not an integer from 0")))
          << place << " " << number;
    }
  }
}

// The program ended when the tables of its keys were destroyed, and no older checkpoint was tried.
TEST_F(Resume, AConfigurationTooDeepToReadIsDamage) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  nlohmann::json state = nlohmann::json::parse(checkpoint.state_json);
  std::string key = "a";
  for (int part = 1; part < 400'000; ++part) key += ".a";
  for (const std::string& text : {key + " = 1", "# " + std::string(1 << 20, 'x')}) {
    state["config"] = text;
    checkpoint.step += 1;
    checkpoint.state_json = state.dump();
    save_checkpoint(run.logging.run_dir, checkpoint, 5);
  }
  std::vector<std::string> warnings;
  const auto loaded =
      load_latest_checkpoint(run.logging.run_dir, [&](const std::string& text) { warnings.push_back(text); });
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, checkpoint.step - 2);
  EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr("state.json'"), HasSubstr("config: line 1: has 1048578 bytes")),
                                    AllOf(HasSubstr("state.json'"), HasSubstr("a key of more than 32 parts"))));
  EXPECT_TRUE(train(run).complete);
}

TEST_F(Resume, StateThatIsNotOursIsDamage) {
  const RunConfig run = config("run");
  run_until_signal(run, 4);
  Checkpoint checkpoint = load_checkpoint(list_checkpoints(run.logging.run_dir).front());
  checkpoint.step = 6;
  for (const char* state : {"{}", "[]", "{\"version\": 1}"}) {
    checkpoint.state_json = state;
    save_checkpoint(run.logging.run_dir, checkpoint, 2);
    EXPECT_THAT(message_of<DamagedFile>([&] { Trainer trainer(run, {}); }), HasSubstr("step 6"));
  }
  checkpoint.state_json = R"({"version": 7})";
  save_checkpoint(run.logging.run_dir, checkpoint, 2);
  EXPECT_THAT(message_of<InvalidArgument>([&] { Trainer trainer(run, {}); }), HasSubstr("version 7"));
}

}  // namespace
}  // namespace lighthouse
