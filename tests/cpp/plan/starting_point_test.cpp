#include "plan/starting_point.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "plan/advice.h"
#include "plan/memory.h"
#include "plan_support.h"

namespace lighthouse {
namespace {

using testing::HasSubstr;

StartingRequest request(const std::string& model, int64_t seq_len, int64_t gib, int64_t num_ranks = 1) {
  StartingRequest request;
  request.model = model_preset(model);
  request.seq_len = seq_len;
  request.corpus_tokens = int64_t{1} << 33;
  request.device_bytes = gib * kGiB;
  request.on_cuda = true;
  request.num_ranks = num_ranks;
  request.profile = *find_profile("h200");
  return request;
}

std::string refusal(const StartingRequest& request) {
  try {
    starting_point(request);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

/// Models, lengths, devices and numbers of them, all that a person may ask for.
std::vector<StartingRequest> many_requests() {
  std::vector<StartingRequest> requests;
  for (const char* model : {"small", "paper", "llama3-1b", "llama3-8b"}) {
    for (const int64_t seq_len : {1000, 8192, 100000, 1 << 20}) {
      for (const int64_t gib : {24, 80, 141}) {
        for (const int64_t ranks : {1, 2, 8}) requests.push_back(request(model, seq_len, gib, ranks));
      }
    }
  }
  return requests;
}

TEST(StartingPointTest, FitsAndIsValidOrSaysWhatWould) {
  int found = 0, refused = 0;
  for (const StartingRequest& wanted : many_requests()) {
    const std::string message = refusal(wanted);
    if (!message.empty()) {
      ++refused;
      EXPECT_THAT(message, testing::AnyOf(HasSubstr("the longest that fits is "), HasSubstr("no length fits"),
                                          HasSubstr("ranks cannot share")));
      continue;
    }
    ++found;
    const StartingPoint point = starting_point(wanted);
    EXPECT_NO_THROW(validate(point.config));
    EXPECT_EQ(point.bytes, run_bytes(point.config, true));
    EXPECT_LE(point.bytes, wanted.device_bytes);
    EXPECT_EQ(point.config.parallel.data * point.config.parallel.context, wanted.num_ranks);
    EXPECT_EQ(point.config.training.gradient_accumulation % point.config.parallel.data, 0)
        << "or some ranks have nothing to do";
  }
  EXPECT_GT(found, 80);
  EXPECT_GT(refused, 10);
}

TEST(StartingPointTest, SaysOfEveryChangedKeyWhy) {
  for (const StartingRequest& wanted : {request("paper", 65536, 80), request("llama3-1b", 1 << 20, 80, 8)}) {
    const StartingPoint point = starting_point(wanted);
    RunConfig said;  // only what has a reason, as the file has it
    said.model = wanted.model;
    apply_toml(said, to_toml(point.config, point.reasons), "reasons");
    if (wanted.num_ranks == 1) said.parallel = point.config.parallel;
    EXPECT_EQ(said, point.config);
  }
}

TEST(StartingPointTest, TheLongestThatFitsDoesAndNoLongerOne) {
  StartingRequest wanted = request("llama3-1b", 1 << 20, 60);
  const std::string message = refusal(wanted), words = "the longest that fits is ";
  ASSERT_THAT(message, HasSubstr(words));
  wanted.seq_len = std::stoll(message.substr(message.find(words) + words.size()));
  EXPECT_EQ(wanted.seq_len % 1024, 0);
  EXPECT_EQ(refusal(wanted), "");
  wanted.seq_len += 1024;
  EXPECT_THAT(refusal(wanted), HasSubstr(words + std::to_string(wanted.seq_len - 1024)));
}

TEST(StartingPointTest, FewerInputsAreKeptWhereTheHostIsSmall) {
  StartingRequest wanted = request("paper", 1 << 21, 141);
  const StartingPoint point = starting_point(wanted);
  ASSERT_TRUE(point.config.training.offload);
  EXPECT_EQ(point.config.training.recompute_layers, 1);
  const int64_t needed = run_host_bytes(point.config);
  wanted.host_bytes = needed;
  EXPECT_EQ(starting_point(wanted).config, point.config);
  wanted.host_bytes = needed / 2;
  const StartingPoint less = starting_point(wanted);
  EXPECT_GE(less.config.training.recompute_layers, 2);
  EXPECT_LE(run_host_bytes(less.config), needed / 2);
  EXPECT_LE(less.bytes, wanted.device_bytes);
  EXPECT_THAT(to_toml(less.config, less.reasons), HasSubstr("as few as make the inputs fit host memory"));
  wanted.host_bytes = kGiB;
  EXPECT_THAT(refusal(wanted), HasSubstr("of the host, which has 1.0 GiB for each device"));
}

TEST(StartingPointTest, WindowsInEverySecondLayerOfANewModel) {
  StartingRequest wanted = request("paper", 98304, 141);
  const AttentionConfig attention = starting_point(wanted).config.attention;
  ASSERT_EQ(attention.window_layers.size(), 15);
  EXPECT_EQ(attention.window_layers[14], 28);
  EXPECT_EQ(attention.span, 1728);  // of ladder C in docs/experiments.md
  wanted.trained = true;
  EXPECT_TRUE(starting_point(wanted).config.attention.window_layers.empty());
  wanted = request("paper", 2048, 141);  // dense
  EXPECT_TRUE(starting_point(wanted).config.attention.window_layers.empty());
  wanted = request("paper", 1 << 22, 24, 16);  // fits where more ranks share a sequence than it has heads
  EXPECT_EQ(starting_point(wanted).config.parallel.context, 16);
  EXPECT_TRUE(starting_point(wanted).config.attention.window_layers.empty());
}

TEST(StartingPointTest, ASmallCorpusHasSmallBatches) {
  StartingRequest wanted = request("paper", 8192, 80);
  EXPECT_EQ(starting_point(wanted).config.training.gradient_accumulation, 64);  // 2^19 tokens
  wanted.corpus_tokens = 8192 * 3000;
  const TrainingConfig training = starting_point(wanted).config.training;
  EXPECT_EQ(training.gradient_accumulation, 3);
  EXPECT_EQ(training.steps, 1000);
  EXPECT_EQ(training.lighthouse_steps, 625);
  wanted.corpus_tokens = 8192;
  EXPECT_EQ(starting_point(wanted).config.training.steps, 1);
}

TEST(StartingPointTest, WeightsThatThereAreGetATwentiethOfTheRate) {
  StartingRequest wanted = request("llama3-8b", 32768, 141, 8);
  EXPECT_EQ(starting_point(wanted).config.optimizer.learning_rate, 4e-4);
  wanted.trained = true;
  EXPECT_EQ(starting_point(wanted).config.optimizer.learning_rate, 2e-5);
}

TEST(StartingPointTest, ACpuComputesInFp32) {
  StartingRequest wanted = request("small", 2048, 16);
  wanted.on_cuda = false;
  const StartingPoint point = starting_point(wanted);
  EXPECT_EQ(point.config.training.precision, Precision::kFp32);
  EXPECT_EQ(point.config.training.device, DeviceChoice::kCpu);
  EXPECT_FALSE(point.config.training.offload);
  EXPECT_EQ(point.bytes, run_bytes(point.config, false));
}

}  // namespace
}  // namespace lighthouse
