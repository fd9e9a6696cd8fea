// The tasks on hand-made models, whose results are known, and against slower ways to the same numbers.
#include "eval/tasks.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpp/train/train_support.h"
#include "eval/sample.h"
#include "lighthouse/check.h"
#include "model/batch.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

using Json = nlohmann::ordered_json;

constexpr double kFloatRounding = std::numeric_limits<float>::epsilon();

EvalSettings settings() {
  EvalSettings result;
  result.modes = {AttentionMode::kDense, AttentionMode::kLighthouse};
  result.sequences = 6;
  result.context = 16;
  result.lengths = {220, 256};
  result.depths = {0, 0.5, 1};
  return result;
}

RunConfig eval_config(const TemporaryFolder& folder) {
  RunConfig config = tiny_config(folder);
  config.data.validation_fraction = 0.04;  // seven sequences of 200
  return config;
}

struct Fixture {
  TemporaryFolder folder;
  RunConfig config = eval_config(folder);
  SequenceLoader loader{config.data, 200, config.model.vocab_size};
  Decoder decoder{config.model, config.attention, 1};
  Evaluation evaluation{decoder, &loader, settings()};

  /// Sets the weights whose name ends so to a value.
  void fill(const std::string& ending, double value) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : decoder.parameters()) {
      if (name.ends_with(ending)) tensor.fill_(value);
    }
  }
  /// Every token is embedded as ones and stays so: the logits are `lm_head` times ones.
  void forget_tokens() {
    fill("o_proj.weight", 0);
    fill("down_proj.weight", 0);
    fill("embed_tokens.weight", 1);
    fill("lm_head.weight", 0);
  }
  at::Tensor lm_head() const {
    for (const auto& [name, tensor] : decoder.parameters()) {
      if (name.ends_with("lm_head.weight")) return tensor.detach();
    }
    return {};
  }
};

TEST(LossTask, OfTheUniformModelIsOneByte) {
  Fixture run;
  run.forget_tokens();
  const Json loss = measure_loss(run.evaluation);
  for (const char* mode : {"dense", "lighthouse"}) {
    EXPECT_NEAR(loss[mode]["bits_per_byte"].get<double>(), 8, 8 * kFloatRounding);
    EXPECT_NEAR(loss[mode]["standard_error"].get<double>(), 0, 8 * kFloatRounding);
  }
}

TEST(LossTask, IsThatOfTheSequencesAndOfValidation) {
  Fixture run;
  const Json loss = measure_loss(run.evaluation)["dense"];
  const std::vector<int64_t> sample = validation_sample(run.loader, 6, 1);
  double sum = 0;
  ASSERT_EQ(loss["sequences"].size(), sample.size());
  for (size_t place = 0; place < sample.size(); ++place) {
    const Json& one = loss["sequences"][place];
    EXPECT_EQ(one["index"], sample[place]);
    EXPECT_EQ(one["targets"], 200);
    const Sequence sequence = run.loader.validation_sequence(sample[place]);
    const Batch batch = make_batch({&sequence, 1}, at::kCPU);
    const auto expected = run.decoder.loss(batch.tokens, batch.targets, AttentionMode::kDense).item<double>();
    EXPECT_NEAR(one["loss"].get<double>(), expected, expected * kFloatRounding);
    sum += one["loss"].get<double>();
  }
  EXPECT_NEAR(loss["loss"].get<double>(), sum / 6, 1e-12);
  EXPECT_GT(loss["standard_error"].get<double>(), 0);
}

TEST(PositionTask, BucketsPartTheLoss) {
  Fixture run;
  const Json loss = measure_loss(run.evaluation);
  const Json position = measure_position(run.evaluation);
  for (const char* mode : {"dense", "lighthouse"}) {
    const Json& buckets = position[mode];
    ASSERT_EQ(buckets.size(), 3U);
    double sum = 0;
    int64_t end = 0;
    for (const Json& bucket : buckets) {
      EXPECT_EQ(bucket["begin"], end);
      end = bucket["end"].get<int64_t>();
      EXPECT_EQ(bucket["targets"], 6 * (end - bucket["begin"].get<int64_t>()));
      sum += bucket["loss"].get<double>() * bucket["targets"].get<double>();
    }
    EXPECT_EQ(buckets[1]["begin"], 64);
    EXPECT_EQ(buckets[2]["begin"], 128);
    EXPECT_EQ(end, 200);
    EXPECT_NEAR(sum / (6 * 200), loss[mode]["loss"].get<double>(), 1e-12);
  }
}

TEST(SequenceLosses, CountPositionsFromTheBeginningOfEachDocument) {
  Fixture run;
  for (int64_t file = 0; file < 30; ++file) {
    write_bytes(run.folder / "documents" / (std::to_string(file) + ".txt"), tiny_corpus(30 + file));
  }
  run.config.data.path = (run.folder / "documents").string();
  run.config.data.packing = Packing::kDocuments;
  run.config.data.validation_fraction = 0.3;
  const SequenceLoader loader(run.config.data, 64, 256);
  const Sequence sequence = loader.validation_sequence(1);
  const SequenceLosses losses = sequence_losses(run.decoder, loader, 1, AttentionMode::kDense);
  ASSERT_GT(sequence.cu_seqlens.size(), 2U);
  for (size_t document = 0; document + 1 < sequence.cu_seqlens.size(); ++document) {
    for (int64_t token = sequence.cu_seqlens[document]; token < sequence.cu_seqlens[document + 1]; ++token) {
      const auto place = static_cast<size_t>(token);
      const bool counts = sequence.targets[place] != kIgnoredTarget;
      EXPECT_EQ(losses.positions[place], counts ? token - sequence.cu_seqlens[document] : -1);
      EXPECT_TRUE(counts || losses.nats[place] == 0);
    }
  }
  EXPECT_EQ(losses.part(0, 10).count + losses.part(10, 64).count, losses.all().count);

  EvalSettings asked = settings();  // windows of packed documents
  asked.sequences = 3;
  asked.context = 8;
  Evaluation evaluation(run.decoder, &loader, asked);
  const Json context = measure_context(evaluation);
  EXPECT_GT(context["targets"].get<int64_t>(), 0);
  EXPECT_LT(context["targets"].get<int64_t>(), 3 * (64 - 8)) << "documents begin anew";
}

TEST(ContextTask, IsNothingWhereAttentionIsNothing) {
  Fixture run;
  run.fill("o_proj.weight", 0);
  const Json context = measure_context(run.evaluation);
  EXPECT_EQ(context["targets"], 6 * (200 - 16));
  EXPECT_EQ(context["longest"], 19);
  EXPECT_GT(context["full"].get<double>(), 1);
  EXPECT_NEAR(context["difference"].get<double>(), 0, 8 * kFloatRounding);
}

// One target at a time, from the window that the definition gives it.
TEST(ContextTask, GivesEveryTargetAtLeastCAndLessThanAQuarterMore) {
  const Fixture run;
  for (const int64_t context : {150, 199}) {
    EvalSettings asked = settings();
    asked.sequences = 1;
    asked.context = context;
    Evaluation evaluation(run.decoder, &run.loader, asked);
    const Json result = measure_context(evaluation);
    const int64_t stride = std::min(std::max<int64_t>(context / 4, 1), 200 - context);
    double limited = 0;
    for (const int64_t index : validation_sample(run.loader, 1, 1)) {
      const Sequence sequence = run.loader.validation_sequence(index);
      for (int64_t target = context; target < 200; ++target) {
        const int64_t first = context + (target - context) / stride * stride;
        const int64_t begin = std::min(first + 1 - context, 200 - (context - 1 + stride));
        EXPECT_GE(target + 1 - begin, context);
        EXPECT_LT(target + 1 - begin, context + stride);
        Sequence window;
        window.inputs.assign(sequence.inputs.begin() + begin, sequence.inputs.begin() + target + 1);
        window.targets.assign(window.inputs.size(), kIgnoredTarget);
        window.targets.back() = sequence.targets[static_cast<size_t>(target)];
        const Batch batch = make_batch({&window, 1}, at::kCPU);
        limited += run.decoder.loss(batch.tokens, batch.targets, AttentionMode::kDense).item<double>();
      }
    }
    const double expected = limited / static_cast<double>(200 - context);
    EXPECT_NEAR(result["limited"].get<double>(), expected, 8 * expected * kFloatRounding) << context;
    EXPECT_NEAR(result["difference"].get<double>(), result["limited"].get<double>() - result["full"].get<double>(),
                1e-12);
  }
}

TEST(ContextTask, MustBeShorterThanTheSequence) {
  const Fixture run;
  for (const int64_t context : {0, 200, 1000}) {
    EvalSettings asked = settings();
    asked.context = context;
    Evaluation evaluation(run.decoder, &run.loader, asked);
    EXPECT_THAT(message_of<InvalidArgument>([&] { measure_context(evaluation); }),
                AllOf(HasSubstr("--context " + std::to_string(context)), HasSubstr("200")));
  }
}

TEST(RetrievalTasks, OfAModelThatAlwaysSaysSeven) {
  Fixture run;
  run.forget_tokens();
  constexpr double kLogit = 3;
  run.lm_head()['7'].fill_(kLogit / static_cast<double>(run.config.model.dim));
  for (const char* name : {"passkey", "multikey"}) {
    const Task& task = find_task(name);
    const Json result = task.measure(run.evaluation);
    EXPECT_EQ(result["trials_per_length"], 70);
    ASSERT_EQ(result["lengths"].size(), 2U);
    ASSERT_EQ(result["cells"].size(), 6U);
    for (const Json& length : result["lengths"]) {
      int64_t sevens = 0;
      for (int64_t trial = 0; trial < 70; ++trial) {
        const auto bytes = length["length"].get<int64_t>();
        sevens += make_prompt(task, settings(), sentences_filler(), bytes, trial).answer == "7" ? 1 : 0;
      }
      EXPECT_GT(sevens, 0);
      EXPECT_EQ(length["correct"], sevens);
      EXPECT_EQ(length["trials"], 70);
      const double sum = std::log(std::exp(kLogit) + 9);  // of the ten digits' exponentials
      const double expected = kLogit * static_cast<double>(sevens) / 70 - sum;
      EXPECT_NEAR(length["log_probability"].get<double>(), expected, kLogit * run.config.model.rms_norm_eps);
      EXPECT_LT(length["interval"][0].get<double>(), static_cast<double>(sevens) / 70);
    }
    EXPECT_EQ(result["cells"][0]["trials"], 24);  // 70 over three depths
    EXPECT_EQ(result["cells"][2]["trials"], 23);
  }
}

TEST(CopyTask, OfTheUniformModelIsOneByte) {
  Fixture run;
  run.forget_tokens();
  const Json result = measure_copy(run.evaluation);
  ASSERT_EQ(result["cells"].size(), 2U);
  EXPECT_EQ(result["cells"][0]["distance"], 220 - kCopyBytes);
  EXPECT_EQ(result["cells"][0]["trials"], 16);
  EXPECT_NEAR(result["cells"][1]["bits_per_byte"].get<double>(), 8, 8 * kFloatRounding);
}

TEST(CopyTask, ScoresTheAnswerAlone) {
  Fixture run;
  run.forget_tokens();
  run.lm_head().slice(0, '0', '9' + 1).fill_(40.0 / static_cast<double>(run.config.model.dim));
  run.lm_head().slice(0, 'a', 'f' + 1).fill_(40.0 / static_cast<double>(run.config.model.dim));
  const Json result = measure_copy(run.evaluation);
  for (const Json& cell : result["cells"]) {
    EXPECT_NEAR(cell["bits_per_byte"].get<double>(), 4, 64 * kFloatRounding) << "hexadecimal digits only";
  }
}

TEST(Filler, MayBeHeldOutText) {
  const Fixture run;
  EvalSettings asked = settings();
  asked.corpus_filler = true;
  const Filler filler = Evaluation(run.decoder, &run.loader, asked).filler();
  const std::string text = filler(500, 3);
  EXPECT_EQ(text.size(), 500U);
  const std::string corpus = tiny_corpus();
  const size_t place = corpus.find(text.substr(0, 200));
  EXPECT_GE(place, corpus.size() - 7 * 200 - 1) << "of the validation text";
  EXPECT_NE(place, std::string::npos);
  EXPECT_EQ(filler(500, 3), text);
}

TEST(Tasks, UnknownNamesAreTold) {
  EXPECT_THAT(message_of<InvalidArgument>([] { find_task("paskey"); }), HasSubstr("did you mean passkey?"));
  EXPECT_THAT(message_of<InvalidArgument>([] { find_task("x"); }), HasSubstr("loss, position, passkey"));
}

}  // namespace
}  // namespace lighthouse
