// Several processes train as one does.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "cpp/parallel/ranks.h"
#include "cpp/train/sorted.h"
#include "cpp/train/train_support.h"
#include "model/batch.h"
#include "support/environment_number.h"
#include "train/checkpoint.h"
#include "train/shared_validation.h"
#include "train/step_exchange.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {
using parallel_test::Outcome;
using parallel_test::run_processes;
using parallel_test::run_ranks;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Change = std::function<void(int64_t rank, RunConfig& config, TrainOptions& options)>;

constexpr int64_t kBucketElements = 5000;  // of which the tiny model has several

/// Trains on so many processes; what each says at its end is the step, or its error.
std::vector<Outcome> train_on(int64_t size, const RunConfig& config, const Change& change = {}) {
  const auto body = [&](int64_t rank, World* world) {
    RunConfig own = config;
    TrainOptions options;
    options.world = world;
    options.bucket_elements = kBucketElements;
    if (change) change(rank, own, options);
    return "step " + std::to_string(train(own, options).step);
  };
  if (size == 1) return run_processes(1, [&](int64_t rank) { return body(rank, nullptr); });
  return run_ranks(size, [&](World& world) { return body(world.rank(), &world); },
                   {.timeout = std::chrono::seconds(20), .limit = std::chrono::seconds(120)});
}

void expect_step(const std::vector<Outcome>& outcomes, int64_t step) {
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.text, "step " + std::to_string(step));
  }
}

Checkpoint last_checkpoint(const RunConfig& config) {
  return load_checkpoint(list_checkpoints(config.logging.run_dir).front());
}

void expect_same_run(const RunConfig& a, const RunConfig& b) {
  const Checkpoint of_a = last_checkpoint(a), of_b = last_checkpoint(b);
  EXPECT_EQ(of_a.step, of_b.step);
  EXPECT_TRUE(same_tensors(by_name(of_a.model), by_name(of_b.model))) << "weights differ";
  EXPECT_TRUE(same_tensors(by_name(whole_tensors(of_a.optimizer)), by_name(whole_tensors(of_b.optimizer))))
      << "moments differ";
  EXPECT_EQ(read_timeless_metrics(a.logging.run_dir), read_timeless_metrics(b.logging.run_dir));
}

/// A signal comes to the last rank in the step that begins after `step` steps.
Change signal_after(int64_t step, int64_t size) {
  return [=](int64_t rank, RunConfig&, TrainOptions& options) {
    options.on_gradients = [=](int64_t current, const NamedTensors&) {
      if (current == step && rank == size - 1) std::raise(SIGTERM);
    };
  };
}

class RanksTest : public ::testing::Test {
 protected:
  /// Four micro-batches of a sequence a step, whose gradients are added in a tree.
  RunConfig config(const std::string& run_dir) {
    RunConfig result = tiny_config(folder_);
    result.training.batch_size = 1;
    result.training.gradient_accumulation = 4;
    result.training.accumulation = Accumulation::kTree;
    result.logging.run_dir = (folder_ / run_dir).string();
    result.logging.tensorboard = false;
    return result;
  }
  const TemporaryFolder folder_;
};

TEST_F(RanksTest, ThatShareTheBatchHaveTheBitsOfOneProcess) {
  const auto fifty_steps = [&](const std::string& run_dir) {
    RunConfig result = config(run_dir);
    result.training.gradient_accumulation = 8;
    result.training.steps = 50;
    result.training.lighthouse_steps = 30;
    result.optimizer.learning_rate = 1e-2;
    result.checkpoint.interval = 20;
    return result;
  };
  expect_step(train_on(1, fifty_steps("one")), 50);
  for (const int64_t size : {2, 4, 8}) {
    const RunConfig shared = fifty_steps(std::to_string(size));
    expect_step(train_on(size, shared), 50);
    expect_same_run(shared, fifty_steps("one"));
  }
}

TEST_F(RanksTest, ThatExchangeLayersThatAreComputedAgainHaveTheBitsOfOneProcess) {
  const auto make = [&](const std::string& run_dir) {
    RunConfig result = config(run_dir);
    result.model.tie_embeddings = true;
    result.training.recompute = Recompute::kFull;
    result.training.offload = true;
    result.training.offload_optimizer = run_dir == "two";
    return result;
  };
  expect_step(train_on(1, make("one")), 12);
  expect_step(train_on(2, make("two")), 12);
  expect_same_run(make("one"), make("two"));
}

TEST_F(RanksTest, WithWeightsOnTheHostHaveTheBitsOfOneProcess) {
  const auto make = [&](const std::string& run_dir, bool on_host) {
    RunConfig result = config(run_dir);
    result.training.precision = Precision::kBf16;
    result.training.offload_optimizer = result.training.offload_weights = on_host;
    return result;
  };
  expect_step(train_on(1, make("one", false)), 12);
  for (const int64_t size : {2, 4}) {
    const RunConfig shared = make("shared" + std::to_string(size), true);
    expect_step(train_on(size, shared), 12);
    expect_same_run(shared, make("one", false));
  }
  // Saved by some, read by others, here and there.
  expect_step(train_on(2, make("broken", true), signal_after(4, 2)), 5);
  expect_step(train_on(4, make("broken", true), signal_after(6, 4)), 7);
  expect_step(train_on(2, make("broken", false), signal_after(9, 2)), 10);
  expect_step(train_on(2, make("broken", true)), 12);
  expect_same_run(make("one", false), make("broken", true));
}

TEST_F(RanksTest, MayHaveUnevenNumbersOfMicroBatches) {
  const auto three_batches = [&](const std::string& run_dir) {
    RunConfig result = config(run_dir);
    result.training.gradient_accumulation = 3;
    return result;
  };
  expect_step(train_on(1, three_batches("one")), 12);
  expect_step(train_on(2, three_batches("two")), 12);
  expect_same_run(three_batches("one"), three_batches("two"));
}

TEST_F(RanksTest, NeedNoTreeForTwoMicroBatches) {
  const auto two_batches = [&](const std::string& run_dir) {
    RunConfig result = config(run_dir);
    result.training.accumulation = Accumulation::kSequence;
    result.training.batch_size = 2;
    result.training.gradient_accumulation = 2;
    return result;
  };
  expect_step(train_on(1, two_batches("one")), 12);
  expect_step(train_on(2, two_batches("two")), 12);
  expect_same_run(two_batches("one"), two_batches("two"));
}

TEST_F(RanksTest, StopTogetherAndGoOnWithAnotherNumberOfThem) {
  expect_step(train_on(1, config("unbroken")), 12);
  const RunConfig broken = config("broken");
  expect_step(train_on(2, broken, signal_after(4, 2)), 5);
  EXPECT_EQ(last_checkpoint(broken).step, 5);
  expect_step(train_on(1, broken, signal_after(6, 1)), 7);
  expect_step(train_on(4, broken, signal_after(9, 4)), 10);
  expect_step(train_on(2, broken), 12);
  expect_same_run(config("unbroken"), broken);
}

/// Of documents of two bytes every other token, a sequence here, has no target.
RunConfig with_empty_sequences(RunConfig config, const TemporaryFolder& folder) {
  for (int64_t file = 0; file < 100; ++file) {
    write_bytes(folder / "documents" / (std::to_string(file) + ".txt"), tiny_corpus(100).substr(file, 2));
  }
  config.data.path = (folder / "documents").string();
  config.data.packing = Packing::kDocuments;
  config.data.validation_fraction = 0;
  config.training.seq_len = 1;
  config.training.lighthouse_steps = 0;
  return config;
}

TEST_F(RanksTest, WithoutTargetsAddNothing) {
  const auto make = [&](const std::string& run_dir) { return with_empty_sequences(config(run_dir), folder_); };
  const RunConfig one = make("one"), four = make("four");
  const SequenceLoader loader(one.data, one.training.seq_len, one.model.vocab_size);
  int64_t num_empty = 0;
  for (int64_t index = 0; index < one.training.steps * 4; ++index) {
    const Sequence sequence = loader.training_sequence(index);
    if (make_host_batch({&sequence, 1}).num_targets == 0) ++num_empty;
  }
  ASSERT_GT(num_empty, 5) << "there is nothing to test";
  expect_step(train_on(1, one), 12);
  expect_step(train_on(4, four), 12);
  expect_same_run(one, four);
  for (const nlohmann::json& line : read_metrics(four.logging.run_dir)) EXPECT_FALSE(line.contains("skipped"));
}

/// Four tiles, and two heads that ranks can share.
RunConfig with_long_rows(RunConfig config, Scorer scorer) {
  config.model.num_heads = 4;
  config.model.num_kv_heads = 2;
  config.model.head_dim = 8;
  config.attention.scorer = scorer;
  config.attention.tile_topk = 1;
  config.training.steps = 6;
  config.training.lighthouse_steps = 4;
  config.validation.interval = 3;
  return config;
}

void expect_near_run(const RunConfig& run, const RunConfig& expected) {
  const auto lines = read_metrics(run.logging.run_dir), of_expected = read_metrics(expected.logging.run_dir);
  ASSERT_EQ(lines.size(), of_expected.size());
  constexpr double kRelative = 1e-6;  // of fp32, whose sums over tokens are made in parts
  for (size_t step = 0; step < lines.size(); ++step) {
    for (const char* key : {"loss", "grad_norm", "validation_loss", "validation_loss_lighthouse"}) {
      EXPECT_EQ(lines[step].contains(key), of_expected[step].contains(key));
      if (!lines[step].contains(key)) continue;
      const auto value = of_expected[step].at(key).get<double>();
      EXPECT_NEAR(lines[step].at(key).get<double>(), value, kRelative * value) << key << " of step " << step + 1;
    }
  }
}

/// Of `ranks` that share sequences, what make(name, ranks) gives: six steps near those of one process.
void expect_as_one_process(const std::function<RunConfig(const std::string& name, int64_t context)>& make,
                           int64_t ranks) {
  expect_step(train_on(1, make("one", 1)), 6);
  expect_step(train_on(ranks, make("shared", ranks)), 6);
  expect_near_run(make("shared", ranks), make("one", 1));
}

/// Long and short ones, several in a sequence.
RunConfig with_packed_documents(RunConfig config, const TemporaryFolder& folder) {
  for (int64_t file = 0; file < 40; ++file) {
    write_bytes(folder / "mixed" / (std::to_string(file) + ".txt"), tiny_corpus(file % 3 == 0 ? 200 : 9));
  }
  config.data.path = (folder / "mixed").string();
  config.data.packing = Packing::kDocuments;
  return config;
}

TEST_F(RanksTest, ThatShareSequencesTrainAsOneProcess) {
  for (const Scorer scorer : {Scorer::kNorm, Scorer::kDilated, Scorer::kGla}) {
    const auto make = [&](const std::string& name, int64_t context) {
      RunConfig result = with_long_rows(config(name + std::string(word(scorer))), scorer);
      result.parallel.context = context;
      return result;
    };
    expect_as_one_process(make, 2);
    if (scorer != Scorer::kNorm) continue;
    expect_step(train_on(4, make("mesh", 2)), 6);
    expect_near_run(make("mesh", 2), make("one", 1));
    expect_same_run(make("mesh", 2), make("shared", 2));  // any number of groups has the bits of one
  }
}

TEST_F(RanksTest, ThatShareSequencesOfWindowLayersTrainAsOneProcess) {
  const auto make = [&](const std::string& name, int64_t context) {
    RunConfig result = with_long_rows(config(name), Scorer::kNorm);
    result.attention.full_attention_layers = {};
    result.attention.window_layers = {0};
    result.attention.span = 5;
    result.parallel.context = context;
    return result;
  };
  expect_as_one_process(make, 2);
}

TEST_F(RanksTest, ThatSharePackedDocumentsTrainAsOneProcess) {
  const auto make = [&](const std::string& name, int64_t context) {
    RunConfig result = with_long_rows(config(name), Scorer::kGla);
    result.attention.full_attention_layers = {};
    result.attention.window_layers = {0};
    result.attention.span = 5;
    result.parallel.context = context;
    return with_packed_documents(std::move(result), folder_);
  };
  expect_as_one_process(make, 2);
}

TEST_F(RanksTest, ShareSequencesOfQwenAndRecomputedLayers) {
  const auto make = [&](const std::string& name, int64_t context, Recompute recompute) {
    RunConfig result = with_long_rows(config(name), Scorer::kDilated);
    result.model.family = ModelFamily::kQwen3;
    result.parallel.context = context;
    result.training.recompute = recompute;
    return result;
  };
  expect_step(train_on(1, make("one", 1, Recompute::kNone)), 6);
  expect_step(train_on(2, make("two", 2, Recompute::kNone)), 6);
  expect_step(train_on(2, make("recomputed", 2, Recompute::kFull)), 6);
  expect_near_run(make("two", 2, Recompute::kNone), make("one", 1, Recompute::kNone));
  expect_same_run(make("recomputed", 2, Recompute::kFull), make("two", 2, Recompute::kNone));
}

/// Two heads, so that of four ranks two have a part of their rows.
RunConfig with_few_heads(RunConfig config, Scorer scorer) {
  RunConfig result = with_long_rows(std::move(config), scorer);
  result.model.num_heads = 2;
  result.model.num_kv_heads = 1;
  return result;
}

TEST_F(RanksTest, ThatShareRowsOfHeadsTrainAsOneProcess) {
  for (const Scorer scorer : {Scorer::kNorm, Scorer::kDilated}) {
    const auto make = [&](const std::string& name, int64_t context) {
      RunConfig result = with_few_heads(config(name + std::string(word(scorer))), scorer);
      result.parallel.context = context;
      return result;
    };
    expect_step(train_on(1, make("one", 1)), 6);
    for (const int64_t context : {3, 4}) {
      const std::string name = "context " + std::to_string(context);
      expect_step(train_on(context, make(name, context)), 6);
      expect_near_run(make(name, context), make("one", 1));
    }
    expect_step(train_on(4, make("again", 4)), 6);
    expect_same_run(make("again", 4), make("context 4", 4));
  }
}

TEST_F(RanksTest, ThatShareRowsOfPackedDocumentsTrainAsOneProcess) {
  const auto make = [&](const std::string& name, int64_t context) {
    RunConfig result = with_few_heads(config(name), Scorer::kNorm);
    result.parallel.context = context;
    return with_packed_documents(std::move(result), folder_);
  };
  expect_as_one_process(make, 4);
}

TEST_F(RanksTest, GoOnFromARunThatSharedRowsOfHeads) {
  const auto make = [&](const std::string& name, int64_t context) {
    RunConfig result = with_few_heads(config(name), Scorer::kNorm);
    result.parallel.context = context;
    return result;
  };
  expect_step(train_on(1, make("unbroken", 1)), 6);
  expect_step(train_on(4, make("broken", 4), signal_after(2, 2)), 3);
  expect_step(train_on(2, make("broken", 2)), 6);
  expect_near_run(make("broken", 2), make("unbroken", 1));
}

TEST_F(RanksTest, GoOnWithAnotherShareOfSequences) {
  const auto make = [&](const std::string& name, int64_t context) {
    RunConfig result = with_long_rows(config(name), Scorer::kNorm);
    result.parallel.context = context;
    return result;
  };
  expect_step(train_on(1, make("unbroken", 1)), 6);
  expect_step(train_on(2, make("broken", 2), signal_after(2, 2)), 3);
  expect_step(train_on(1, make("broken", 1)), 6);
  expect_near_run(make("broken", 1), make("unbroken", 1));
}

/// On the second rank `act` is called within every backward pass of the step after `step` steps, when the gradient of
/// parameter number 3 comes, of the first layer; what it returns is that gradient from there on.
Change in_backward(int64_t step, const std::function<at::Tensor(const at::Tensor&)>& act) {
  return [=](int64_t rank, RunConfig&, TrainOptions& options) {
    if (rank != 1) return;
    options.on_gradients = [=](int64_t current, const NamedTensors& parameters) {
      const at::Tensor& parameter = parameters[3].second;
      if (current == step - 1) parameter.register_hook(act);
      if (current == step) parameter.remove_hook(0);
    };
  };
}

/// A number of the gradient of a parameter, in backward of a step that a rank takes.
struct Point {
  int64_t step, rank;
  size_t parameter;
  float value;
};

Change spoiling(const std::vector<Point>& points) {
  return [=](int64_t rank, RunConfig&, TrainOptions& options) {
    options.on_gradients = [=, hook = 0U](int64_t current, const NamedTensors& parameters) mutable {
      for (const Point& point : points) {
        const at::Tensor& parameter = parameters[point.parameter % parameters.size()].second;
        if (point.rank != rank) continue;
        if (current == point.step) parameter.remove_hook(hook);
        if (current != point.step - 1) continue;
        hook = parameter.register_hook([value = point.value](const at::Tensor& gradient) {
          at::Tensor spoilt = gradient.clone();
          spoilt.view({-1})[spoilt.numel() / 2].fill_(value);
          return spoilt;
        });
      }
    };
  };
}

// What is not finite on one rank: all skip the step, and the weights have the bits of one process that does.
// LIGHTHOUSE_TEST_POINTS says at how many points.
TEST_F(RanksTest, SkipStepsTogether) {
  std::mt19937_64 random(1);
  const int rounds = std::max(1, environment_number("LIGHTHOUSE_TEST_POINTS", 5) / 5);
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    const int64_t size = round % 2 == 0 ? 2 : 4;  // which add gradients in the tree of one process
    std::vector<Point> points, of_one;
    for (const int64_t step : {1, 3, 5, 8, 10}) {
      const float value = step % 3 == 0 ? NAN : step % 2 == 0 ? INFINITY : -INFINITY;
      points.push_back({step, static_cast<int64_t>(random() % static_cast<uint64_t>(size)), random() % 100, value});
      of_one.push_back({step, 0, points.back().parameter, value});
    }
    const RunConfig run = config("run" + std::to_string(round)), one = config("one" + std::to_string(round));
    expect_step(train_on(size, run, spoiling(points)), 12);
    const std::vector<nlohmann::json> lines = read_metrics(run.logging.run_dir);
    ASSERT_EQ(lines.size(), 12);
    for (const nlohmann::json& line : lines) {
      const auto at_point = [&](const Point& point) { return point.step + 1 == line.at("step"); };
      EXPECT_EQ(line.contains("skipped"), std::any_of(points.begin(), points.end(), at_point)) << line;
    }
    EXPECT_THAT(lines[1].at("skipped").get<std::string>(), HasSubstr("not finite: gradient of "));
    expect_step(train_on(1, one, spoiling(of_one)), 12);
    expect_same_run(run, one);
  }
}

TEST_F(RanksTest, NameOneThatIsKilled) {
  const std::string run_dir = config("run").logging.run_dir;
  const auto outcomes = train_on(3, config("run"), in_backward(4, [=](const at::Tensor& gradient) {
                                   while (list_checkpoints(run_dir).empty())
                                     std::this_thread::sleep_for(std::chrono::milliseconds(5));
                                   ::kill(::getpid(), SIGKILL);
                                   return gradient;
                                 }));
  for (const size_t rank : {0, 2}) {
    EXPECT_EQ(outcomes[rank].exit_code, 1);
    EXPECT_THAT(outcomes[rank].text, AllOf(HasSubstr("'step 5, sum of gradients, bucket "), HasSubstr("' failed"),
                                           HasSubstr("rank 1 is dead or stopped; last seen in 'step 5")));
  }
  EXPECT_EQ(last_checkpoint(config("run")).step, 3) << "is whole";
}

TEST_F(RanksTest, SaveTheirStepsWhereOneCannotReadItsData) {
  RunConfig run = config("run");
  std::string text = tiny_corpus();
  text[20000] = 'z';  // the only one, and no token of this vocabulary
  write_bytes(folder_ / "spoiled.txt", text);
  run.data.path = (folder_ / "spoiled.txt").string();
  run.model.vocab_size = 'z';
  run.data.validation_fraction = 0;
  run.training.steps = 300;
  const auto outcomes = train_on(2, run);
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcomes[0].text + outcomes[1].text,
              AllOf(HasSubstr("cannot read its sequences of step"), HasSubstr("122")));
  const int64_t step = last_checkpoint(run).step;
  EXPECT_EQ(read_metrics(run.logging.run_dir).size(), step) << "no step is lost";
}

TEST_F(RanksTest, ThatWereStartedWithOtherThingsRefuse) {
  const auto refused = [&](const Change& change) {
    const auto outcomes = train_on(2, config("refused"), change);
    EXPECT_EQ(outcomes[0].exit_code, 1);
    EXPECT_EQ(outcomes[1].exit_code, 1);
    return outcomes[0].text;
  };
  const auto on_second = [](const std::function<void(RunConfig&)>& change) {
    return [=](int64_t rank, RunConfig& config, TrainOptions&) {
      if (rank == 1) change(config);
    };
  };
  EXPECT_THAT(refused(on_second([](RunConfig& config) { config.training.seed = 7; })),
              AllOf(HasSubstr("do not agree on the configuration"), HasSubstr("rank 1 has\n  seed = 7")));
  EXPECT_THAT(refused(on_second([](RunConfig& config) { config.data.path = "/no/such/corpus"; })),
              AllOf(HasSubstr("rank 1 cannot start: "), HasSubstr("/no/such/corpus")));
  EXPECT_THAT(refused([](int64_t, RunConfig& config, TrainOptions&) { config.parallel.data = 3; }),
              AllOf(HasSubstr("parallel.data = 3"), HasSubstr("3 processes, but 2 were started")));
  EXPECT_THAT(refused([](int64_t, RunConfig& config, TrainOptions&) { config.training.gradient_accumulation = 1; }),
              HasSubstr("training.gradient_accumulation = 1"));
  EXPECT_THAT(refused([](int64_t, RunConfig& config, TrainOptions&) {
                config.parallel.context = 2;
                config.attention.topk = config.attention.tile_topk;
              }),
              HasSubstr("1 tiles for 2 ranks"));
}

TEST_F(RanksTest, SayWhichIsSlow) {
  RunConfig slow = config("slow");
  slow.logging.timing_interval = 2;
  static constexpr std::chrono::milliseconds kDelay{250};  // more than a busy machine makes of a step
  expect_step(train_on(2, slow,
                       [](int64_t rank, RunConfig&, TrainOptions& options) {
                         options.on_gradients = [=](int64_t, const NamedTensors&) {
                           if (rank == 1) std::this_thread::sleep_for(kDelay);
                         };
                       }),
              12);
  for (const nlohmann::json& line : read_metrics(slow.logging.run_dir)) {
    ASSERT_EQ(line.contains("ranks"), line.at("step").get<int64_t>() % 2 == 0);
    if (!line.contains("ranks")) continue;
    EXPECT_EQ(line["ranks"]["slowest"]["rank"], 1);
    EXPECT_EQ(line["ranks"]["fastest"]["rank"], 0);
    EXPECT_GE(line["ranks"]["slowest"]["seconds"].get<double>(), 0.25);
    EXPECT_FALSE(line["ranks"].contains("fullest")) << "the CPU does not count memory";
  }
}

TEST_F(RanksTest, TellOneAnotherWhatAStepCosts) {
  const auto exchange = [](World& world) {
    Mesh mesh(world, 1);
    mesh.connect();
    const GradientExchange gradients({at::zeros({3})}, mesh.all());
    const StepExchange step(mesh, gradients, 2 * mesh.size(), at::kCPU);
    const auto own = static_cast<double>(1 + mesh.rank());
    const at::Tensor loss = at::full({}, own, at::kDouble);
    const auto norms = at::full({static_cast<int64_t>(gradients.owned().size())}, 2.0, at::kDouble);
    const int64_t memory = (int64_t{1} << 40) + mesh.rank();
    const StepTotals totals = step.end({loss, loss}, norms, mesh.rank() == 1 ? SIGHUP : 0, {own / 4, memory});
    const std::optional<RankLoads> loads = standing_out(totals.loads);
    return std::to_string(totals.loss) + " " + std::to_string(totals.gradient_norm) + " " +
           std::to_string(totals.stop_signal) + " " + to_json(loads.value()).dump();
  };
  for (const Outcome& outcome : run_ranks(3, exchange)) {
    EXPECT_EQ(outcome.text,
              "12.000000 2.000000 1 "
              R"({"fastest":{"rank":0,"seconds":0.25,"peak_memory":1099511627776},)"
              R"("slowest":{"rank":2,"seconds":0.75,"peak_memory":1099511627778},)"
              R"("fullest":{"rank":2,"seconds":0.75,"peak_memory":1099511627778}})");
  }
}

TEST_F(RanksTest, HearASignalOfOneInAValidation) {
  const RunConfig run = config("run");
  const SequenceLoader loader(run.data, run.training.seq_len, run.model.vocab_size);
  for (const int64_t context_size : {1, 2}) {
    const auto validate = [&](World& world) {
      Mesh mesh(world, context_size);
      mesh.connect();
      const Decoder decoder(run.model, run.attention, 1);
      int calls = 0;
      const auto second = [&](int64_t) { return ++calls == 2 && world.rank() == 1 ? SIGTERM : 0; };
      const ValidationLosses losses = shared_validation_losses(decoder, loader, 9, AttentionMode::kDense, mesh, second);
      return std::to_string(losses.stop_signal) + " after " + std::to_string(calls);
    };
    for (const Outcome& outcome : run_ranks(2, validate)) EXPECT_EQ(outcome.text, "15 after 2");
  }
}

}  // namespace
}  // namespace lighthouse
