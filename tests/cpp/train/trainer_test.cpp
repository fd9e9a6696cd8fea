#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpp/io/full_disk.h"
#include "cpp/train/train_support.h"
#include "lighthouse/check.h"
#include "train/checkpoint.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<double> losses_of(Trainer& trainer, int64_t num_steps) {
  std::vector<double> losses;
  for (int64_t step = 0; step < num_steps; ++step) losses.push_back(trainer.step().loss);
  return losses;
}

RunConfig twenty_steps(const TemporaryFolder& folder) {
  RunConfig config = tiny_config(folder);
  config.training.steps = 20;
  config.training.lighthouse_steps = 14;
  config.optimizer.learning_rate = 1e-2;
  return config;
}

TEST(Trainer, TwentyLossesRepeatBitForBit) {
  const TemporaryFolder folder;
  RunConfig config = twenty_steps(folder);
  Trainer first(config, {});
  const std::vector<double> losses = losses_of(first, 20);
  config.logging.run_dir = (folder / "again").string();
  Trainer second(config, {});
  EXPECT_EQ(losses_of(second, 20), losses);
  EXPECT_TRUE(same_tensors(first.decoder().parameters(), second.decoder().parameters()));
  EXPECT_TRUE(same_tensors(first.optimizer().state(), second.optimizer().state()));
}

// The same text at every step, whatever stage 1 does with it.
TEST(Trainer, ControlsOfStageOneEndInTheSameDenseSteps) {
  const TemporaryFolder folder;
  RunConfig config = with_control(tiny_config(folder), AttentionMethod::kShort);
  config.training.steps = 4;
  config.training.lighthouse_steps = 2;
  config.training.gradient_accumulation = 1;
  Trainer trainer(config, {});
  for (int64_t step = 0; step < 4; ++step) {
    const std::vector<Sequence> sequences = {trainer.loader().training_sequence(2 * step),
                                             trainer.loader().training_sequence(2 * step + 1)};
    const Batch batch = make_batch(sequences, at::kCPU);
    const auto loss = [&](int64_t length) {
      return trainer.decoder()
          .loss(batch.tokens.view({-1, length}), batch.targets.view({-1, length}), AttentionMode::kDense)
          .item<double>();
    };
    const double short_loss = loss(16);
    const double dense_loss = loss(64);
    const StepRecord record = trainer.step();
    EXPECT_NEAR(record.loss, step < 2 ? short_loss : dense_loss, 1e-6);
    EXPECT_GT(std::fabs(short_loss - dense_loss), 1e-5) << "else the test could not fail";
  }
}

TEST(Trainer, ControlsOfStageOneAreValidatedDense) {
  const TemporaryFolder folder;
  RunConfig config = with_control(tiny_config(folder), AttentionMethod::kShort);
  std::ostringstream log;
  TrainOptions options;
  options.log = &log;
  const TrainResult result = train(config, options);
  ASSERT_TRUE(result.validation);
  EXPECT_EQ(result.validation->lighthouse, std::nullopt);
  EXPECT_TRUE(result.switch_report.loss_jump);
  EXPECT_THAT(log.str(), AllOf(HasSubstr("8 dense in sequences of 16, then 4 dense"), HasSubstr("stage 1 short 1/12"),
                               Not(HasSubstr("Lighthouse")), Not(HasSubstr("looks ahead"))));
}

// The list was made on one machine. On another, sums are rounded in another order: that acts like a disturbance of the
// weights by some roundings, and how far such a disturbance moves each loss is measured here.
TEST(Trainer, TwentyLossesMatchTheStoredList) {
  const std::vector<double> stored = {5.564029, 5.405257, 5.106173, 4.720912, 4.413002, 3.969273, 3.675458,
                                      3.477807, 3.235574, 3.097855, 2.937107, 2.937163, 2.784274, 2.751598,
                                      2.734794, 2.682564, 2.611517, 2.599991, 2.584592, 2.623976};
  const TemporaryFolder folder;
  RunConfig config = twenty_steps(folder);
  Trainer trainer(config, {});
  const std::vector<double> losses = losses_of(trainer, 20);
  config.logging.run_dir = (folder / "disturbed").string();
  Trainer disturbed(config, {});
  for (const auto& [name, parameter] : disturbed.decoder().parameters()) {
    const at::NoGradGuard no_grad;
    parameter.mul_(1 + 4 * std::numeric_limits<float>::epsilon());
  }
  const std::vector<double> near = losses_of(disturbed, 20);
  double moved = std::numeric_limits<float>::epsilon() * stored.front();
  for (size_t step = 0; step < stored.size(); ++step) {
    moved = std::max(moved, std::abs(near[step] - losses[step]));
    EXPECT_NEAR(losses[step], stored[step], 100 * moved) << "step " << step;
  }
  EXPECT_LT(100 * moved, 0.1) << "the list still says something";
}

TEST(Trainer, LossStartsAtTheUniformOneAndFalls) {
  const TemporaryFolder folder;
  Trainer trainer(twenty_steps(folder), {});
  const std::vector<double> losses = losses_of(trainer, 20);
  // Normed activations of 32 channels times weights of deviation 0.02 give logits of variance 32 * 0.02^2 = 0.0128: the
  // expected loss is ln 256 + 0.0128 / 2 + 0.0128 / 2 at most, and 256 targets average away the rest.
  EXPECT_NEAR(losses.front(), std::log(256), 0.05);
  // The corpus has 24 characters; their entropy, 2.9 nats, is learnt first.
  EXPECT_LT(losses.back(), 3.2);
}

/// Gradients of the first step.
NamedTensors first_gradients(const RunConfig& config) {
  NamedTensors gradients;
  TrainOptions options;
  options.on_gradients = [&](int64_t, const NamedTensors& parameters) {
    for (const auto& [name, parameter] : parameters) gradients.emplace_back(name, parameter.grad().clone());
  };
  Trainer(config, options).step();
  return gradients;
}

/// The same in fp64, from the definition: the mean over all targets of the step's sequences.
NamedTensors exact_gradients(const RunConfig& config, int64_t num_sequences, AttentionMode mode) {
  const SequenceLoader loader(config.data, config.training.seq_len, config.model.vocab_size);
  const Decoder decoder(config.model, config.attention, static_cast<uint64_t>(config.training.seed),
                        {.dtype = at::kDouble});
  at::Tensor sum;
  int64_t num_targets = 0;
  for (int64_t index = 0; index < num_sequences; ++index) {
    const Sequence sequence = loader.training_sequence(index);
    const Batch batch = make_batch({&sequence, 1}, at::kCPU);
    const at::Tensor loss = decoder.loss(batch.tokens, batch.targets, mode, batch.cu_seqlens) * batch.num_targets;
    sum = sum.defined() ? sum + loss : loss;
    num_targets += batch.num_targets;
  }
  (sum / num_targets).backward();
  NamedTensors gradients;
  for (const auto& [name, parameter] : decoder.parameters()) gradients.emplace_back(name, parameter.grad());
  return gradients;
}

double distance(const NamedTensors& a, const NamedTensors& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += (a[i].second.to(at::kDouble) - b[i].second.to(at::kDouble)).square().sum().item<double>();
  }
  return std::sqrt(squares);
}

TEST(Trainer, AccumulatedGradientsAreThoseOfTheLargerBatch) {
  const TemporaryFolder folder;
  for (const int64_t lighthouse_steps : {0, 8}) {
    RunConfig config = tiny_config(folder);
    config.training.lighthouse_steps = lighthouse_steps;
    const NamedTensors exact =
        exact_gradients(config, 8, lighthouse_steps == 0 ? AttentionMode::kDense : AttentionMode::kLighthouse);
    const auto error = [&](int64_t batch_size, int64_t accumulation) {
      config.training.batch_size = batch_size;
      config.training.gradient_accumulation = accumulation;
      config.logging.run_dir = (folder / std::to_string(100 * lighthouse_steps + batch_size)).string();
      return distance(first_gradients(config), exact);
    };
    const double one_batch = error(8, 1);
    // Eight partial sums instead of one: at most the error of the single batch again.
    EXPECT_LE(error(1, 8), 2 * one_batch);
    EXPECT_LE(error(4, 2), 2 * one_batch);
  }
}

TEST(Trainer, EveryTargetOfPackedDocumentsCountsTheSame) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  for (int64_t file = 0; file < 40; ++file) {  // many short ones, some longer than a sequence
    write_bytes(folder / "documents" / (std::to_string(file) + ".txt"), tiny_corpus(file % 3 == 0 ? 200 : 9));
  }
  config.data.path = (folder / "documents").string();
  config.data.packing = Packing::kDocuments;
  config.training.batch_size = 1;
  config.training.gradient_accumulation = 6;
  const NamedTensors exact = exact_gradients(config, 6, AttentionMode::kLighthouse);
  const double error = distance(first_gradients(config), exact);
  config.training.gradient_accumulation = 1;
  config.logging.run_dir = (folder / "single").string();
  const double single = distance(first_gradients(config), exact_gradients(config, 1, AttentionMode::kLighthouse));
  EXPECT_LE(error, 2 * single);
}

/// Spoils one gradient of the given steps.
TrainOptions with_bad_gradients(const std::function<bool(int64_t)>& is_bad, float value) {
  TrainOptions options;
  options.on_gradients = [=](int64_t step, const NamedTensors& parameters) {
    if (is_bad(step)) parameters[3].second.grad().flatten()[5].fill_(value);
  };
  return options;
}

TEST(Trainer, GradientsThatAreNotFiniteNeverReachTheWeights) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const TemporaryFolder folder;
    Trainer trainer(tiny_config(folder), with_bad_gradients([](int64_t step) { return step == 2; }, bad));
    losses_of(trainer, 2);
    const NamedTensors weights = copies(trainer.decoder().parameters());
    const NamedTensors moments = copies(trainer.optimizer().state());
    const StepRecord record = trainer.step();
    EXPECT_THAT(record.skipped, AllOf(HasSubstr("gradient of"), HasSubstr(weights[3].first)));
    EXPECT_TRUE(same_tensors(trainer.decoder().parameters(), weights));
    EXPECT_TRUE(same_tensors(trainer.optimizer().state(), moments));
    EXPECT_EQ(trainer.state().step, 3);
    EXPECT_EQ(trainer.state().next_sequence, 12);
    EXPECT_EQ(trainer.state().skipped_in_row, 1);
    EXPECT_THAT(trainer.step().skipped, IsEmpty());
    EXPECT_EQ(trainer.state().skipped_in_row, 0);
    EXPECT_FALSE(same_tensors(trainer.decoder().parameters(), weights));
  }
}

TEST(Trainer, LossThatIsNotFiniteNeverReachesTheWeights) {
  const TemporaryFolder folder;
  Trainer trainer(tiny_config(folder), {});
  {
    const at::NoGradGuard no_grad;
    trainer.decoder().parameters().back().second.mul_(1e38F).mul_(1e38F);
  }
  const NamedTensors weights = copies(trainer.decoder().parameters());
  const StepRecord record = trainer.step();
  EXPECT_THAT(record.skipped, HasSubstr("the loss is"));
  EXPECT_TRUE(same_tensors(trainer.decoder().parameters(), weights));
  EXPECT_EQ(trainer.state().switch_tracker.smoothed_loss(), std::nullopt) << "such a loss is no part of the mean";
}

TEST(Trainer, FiveBadStepsInARowEndTheRunWithAdvice) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  // Four in a row, a good one, then all bad.
  const TrainOptions options = with_bad_gradients([](int64_t step) { return step != 0 && step != 5; }, NAN);
  const std::string message = message_of<std::runtime_error>([&] { train(config, options); });
  EXPECT_THAT(message, AllOf(HasSubstr("step 11"), HasSubstr("optimizer.learning_rate"), HasSubstr("gradient of")));
  const std::vector<nlohmann::json> lines = read_metrics(config.logging.run_dir);
  EXPECT_EQ(lines.size(), 11);
  EXPECT_TRUE(lines.at(10).contains("skipped"));
  EXPECT_FALSE(lines.at(5).contains("skipped"));
  for (const fs::path& checkpoint : list_checkpoints(config.logging.run_dir)) {
    for (const auto& [name, tensor] : load_checkpoint(checkpoint).model) {
      EXPECT_TRUE(std::isfinite(tensor.sum().item<double>())) << name;
    }
  }
}

TEST(Trainer, RunLeavesEverythingInItsFolder) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  std::ostringstream log;
  TrainOptions options;
  options.log = &log;
  const TrainResult result = train(config, options);
  EXPECT_TRUE(result.complete);
  EXPECT_EQ(result.step, 12);
  EXPECT_EQ(result.tokens, 12 * 4 * 64);
  ASSERT_TRUE(result.loss && result.validation);
  EXPECT_TRUE(result.validation->lighthouse) << "whether the model still leans on stage 1";
  EXPECT_GT(result.train_seconds, 0);
  EXPECT_LT(result.train_seconds, result.seconds);
  EXPECT_TRUE(result.switch_report.pre_switch_loss && result.switch_report.pre_switch_validation);
  EXPECT_TRUE(result.switch_report.validation_recovered_step) << "words are easy to learn";
  for (const char* part : {"run folder", "switch to dense attention", "recovered at step", "done: 12 steps"}) {
    EXPECT_THAT(log.str(), HasSubstr(part));
  }

  const fs::path run_dir = config.logging.run_dir;
  EXPECT_TRUE(fs::exists(run_dir / "config.toml"));
  const nlohmann::json description = nlohmann::json::parse(read_bytes(run_dir / "run.json"));
  const std::string state = load_checkpoint(list_checkpoints(run_dir).front()).state_json;
  EXPECT_EQ(description.at("corpus").at("fingerprint"), nlohmann::json::parse(state).at("fingerprint"));
  EXPECT_EQ(description.at("device"), "cpu");
  EXPECT_EQ(description.at("processes"), nlohmann::json({{"data", 1}, {"context", 1}}));
  const std::vector<fs::path> checkpoints = list_checkpoints(run_dir);
  ASSERT_EQ(checkpoints.size(), 2);
  EXPECT_EQ(load_checkpoint(checkpoints[0]).step, 12);
  EXPECT_EQ(load_checkpoint(checkpoints[1]).step, 9);
  const std::vector<nlohmann::json> lines = read_metrics(run_dir);
  ASSERT_EQ(lines.size(), 12);
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto step = static_cast<int64_t>(i + 1);
    EXPECT_EQ(lines[i].at("step"), step);
    EXPECT_EQ(lines[i].at("stage"), step <= 8 ? 1 : 2);
    EXPECT_EQ(lines[i].at("tokens"), step * 4 * 64);
    // Every fifth step, the last of either stage.
    EXPECT_EQ(lines[i].contains("validation_loss"), step % 5 == 0 || step == 8 || step == 12) << step;
    EXPECT_EQ(lines[i].contains("validation_loss_lighthouse"), lines[i].contains("validation_loss")) << step;
  }
  EXPECT_EQ(lines[7].at("switch").at("validation_jump").get<double>(),
            lines[7].at("validation_loss").get<double>() - lines[7].at("validation_loss_lighthouse").get<double>());
  EXPECT_FALSE(lines[8].at("switch").at("loss_jump").is_null());
}

TEST(Trainer, FinishedRunIsLeftAsItIs) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  const TrainResult first = train(config);
  const size_t entries = count_entries(config.logging.run_dir);
  const std::string metrics = read_bytes(fs::path(config.logging.run_dir) / "metrics.jsonl");
  std::ostringstream log;
  TrainOptions options;
  options.log = &log;
  const TrainResult second = train(config, options);
  EXPECT_TRUE(second.complete);
  EXPECT_EQ(second.loss, first.loss);
  EXPECT_EQ(second.validation->dense, first.validation->dense);
  EXPECT_EQ(second.switch_report, first.switch_report);
  EXPECT_THAT(log.str(), HasSubstr("all steps are done already"));
  EXPECT_EQ(count_entries(config.logging.run_dir), entries);
  EXPECT_EQ(read_bytes(fs::path(config.logging.run_dir) / "metrics.jsonl"), metrics);
}

TEST(Trainer, Bf16AndOneStageRunsTrain) {
  const TemporaryFolder folder;
  for (const int64_t lighthouse_steps : {0, 12}) {
    RunConfig config = tiny_config(folder);
    config.training.precision = Precision::kBf16;
    config.training.lighthouse_steps = lighthouse_steps;
    config.optimizer.learning_rate = 1e-2;
    config.data.validation_fraction = 0;  // and no validation
    config.logging.run_dir = (folder / std::to_string(lighthouse_steps)).string();
    const TrainResult result = train(config);
    EXPECT_FALSE(result.validation);
    EXPECT_EQ(result.switch_report, SwitchReport{});
    EXPECT_LT(*result.loss, std::log(256) - 0.5);
  }
}

TEST(Trainer, ChecksItsConfigurationBeforeItTouchesTheDisk) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::function<void(RunConfig&)>& change) {
    RunConfig config = tiny_config(folder);
    change(config);
    std::string message;
    try {
      Trainer trainer(config, {});
      ADD_FAILURE() << "accepted";
    } catch (const std::exception& error) {
      message = error.what();
    }
    EXPECT_FALSE(fs::exists(folder / "run")) << message;
    return message;
  };
  EXPECT_THAT(refused([](RunConfig& config) { config.data.path = "/no/such/corpus"; }), HasSubstr("/no/such/corpus"));
  EXPECT_THAT(refused([](RunConfig& config) { config.training.device = DeviceChoice::kCuda; }),
              AllOf(HasSubstr("training.device"), HasSubstr("cpu")));
  EXPECT_THAT(refused([](RunConfig& config) { config.training.lighthouse_steps = 99; }),
              HasSubstr("training.lighthouse_steps"));
  EXPECT_THAT(refused([](RunConfig& config) { config.training.seq_len = 1 << 20; }), HasSubstr("training.seq_len"));
  EXPECT_THAT(refused([](RunConfig& config) { config.model.num_kv_heads = 3; }), HasSubstr("model.num_kv_heads"));
}

TEST(Trainer, RunFolderThatCannotBeMadeIsNamed) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  config.logging.run_dir = (folder / "corpus.txt" / "run").string();
  EXPECT_THAT(message_of<std::system_error>([&] { Trainer trainer(config, {}); }),
              AllOf(HasSubstr("corpus.txt"), HasSubstr("Not a directory")));
  config.logging.run_dir = "";
  EXPECT_THAT(message_of<InvalidArgument>([&] { Trainer trainer(config, {}); }), HasSubstr("logging.run_dir is empty"));
}

TEST(Trainer, TwoNeverTrainInOneFolder) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  {
    Trainer first(config, {});
    EXPECT_THAT(
        message_of<std::runtime_error>([&] { Trainer second(config, {}); }),
        AllOf(HasSubstr(config.logging.run_dir), HasSubstr(std::to_string(::getpid())), HasSubstr("logging.run_dir")));
  }
  Trainer third(config, {});  // free again
}

TEST(Trainer, FullDiskCostsCheckpointsNotTheRun) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  const std::string text = run_with_small_files(60000, [&] {  // room for all but the tensors
    std::ostringstream log;
    TrainOptions options;
    options.log = &log;
    try {
      train(config, options);
    } catch (const std::runtime_error& error) {
      log << "ERROR " << error.what();
    }
    return log.str();
  });
  for (const char* part : {"step 3 is not saved: ", "step 9 is not saved: ",
                           "ERROR the checkpoint of step 12 could not be saved", "from the start"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(read_metrics(config.logging.run_dir).size(), 12);
  EXPECT_THAT(list_checkpoints(config.logging.run_dir), IsEmpty());
  EXPECT_EQ(count_entries(fs::path(config.logging.run_dir) / "checkpoints"), 0);
}

TEST(Trainer, DiskWithoutRoomForACheckpointIsRefusedBeforeTheFirstStep) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  fs::create_directories(config.logging.run_dir);
  const std::string text = run_on_small_disk(config.logging.run_dir, size_t{1} << 16, [&] {
    Trainer trainer(config, {});
    return std::string("accepted");
  });
  if (text == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(text, AllOf(HasSubstr("a checkpoint takes"), HasSubstr("logging.run_dir")));
}

}  // namespace
}  // namespace lighthouse
