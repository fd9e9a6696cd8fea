#include "plan/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "plan/memory.h"
#include "plan_support.h"

namespace lighthouse {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

/// The paper's model at lengths and batches that do not fit, on devices of several sizes.
std::vector<std::pair<RunConfig, int64_t>> tight_cases() {
  std::vector<std::pair<RunConfig, int64_t>> cases;
  for (const int64_t device : {24, 48, 79, 139}) {
    for (const int64_t seq_len : {98304, 262144}) {
      for (const Precision precision : {Precision::kBf16, Precision::kFp32}) {
        for (const int64_t batch : {1, 4}) {
          RunConfig config = paper_config();
          config.training.seq_len = seq_len;
          config.training.precision = precision;
          config.training.batch_size = batch;
          config.training.gradient_accumulation = 8;
          if (run_bytes(config, true) > device * kGiB) cases.emplace_back(config, device * kGiB);
        }
      }
    }
  }
  return cases;
}

TEST(AlternativesTest, FitAndTrainOnTheSameBatches) {
  size_t found = 0;
  for (const auto& [config, device] : tight_cases()) {
    for (const Alternative& alternative : alternatives(config, device, true, h200())) {
      ++found;
      RunConfig changed = config;
      apply_overrides(changed, alternative.settings);
      EXPECT_EQ(changed, alternative.config);
      EXPECT_NO_THROW(validate(changed));
      EXPECT_EQ(alternative.bytes, run_bytes(changed, true));
      EXPECT_LE(alternative.bytes, device);
      EXPECT_EQ(changed.training.batch_size * changed.training.gradient_accumulation,
                config.training.batch_size * config.training.gradient_accumulation);
      EXPECT_EQ(changed.training.seq_len, config.training.seq_len);
    }
  }
  EXPECT_GT(found, 20);
}

TEST(AlternativesTest, CheapestFirstAndChangedPrecisionLast) {
  for (const auto& [config, device] : tight_cases()) {
    const std::vector<Alternative> list = alternatives(config, device, true, h200());
    for (size_t i = 1; i < list.size(); ++i) {
      const bool before = list[i - 1].config.training.precision != config.training.precision;
      const bool after = list[i].config.training.precision != config.training.precision;
      EXPECT_LE(before, after);
      EXPECT_TRUE(before != after || list[i - 1].seconds <= list[i].seconds);
    }
  }
}

TEST(AlternativesTest, TheLeastRecomputationThatFits) {
  RunConfig config = paper_config();
  const auto first = [&](int64_t gib) {
    const std::vector<Alternative> list = alternatives(config, gib * kGiB, true, h200());
    return list.empty() ? std::string("none") : settings_text(list.front());
  };
  EXPECT_EQ(first(139), "none");  // it fits as it is
  EXPECT_EQ(first(52), "--training.recompute selective");
  EXPECT_EQ(first(24), "--training.recompute full");
  EXPECT_THAT(first(8),
              StartsWith("--training.recompute full --training.offload_optimizer true --training.offload true "));
  EXPECT_THAT(first(6), StartsWith("--training.recompute full --training.offload_optimizer true "
                                   "--training.offload_weights true --training.offload true "));
  EXPECT_EQ(first(5), "none");
  config.training.batch_size = 2;
  EXPECT_EQ(first(79), "--training.batch_size 1 --training.gradient_accumulation 64");
}

TEST(AlternativesTest, OffloadsAsFewLayersAsFit) {
  RunConfig config = paper_config();
  config.training.seq_len = 262144;
  RunConfig full = config;
  full.training.recompute = Recompute::kFull;
  const int64_t kept = run_bytes(full, true);
  full.training.offload = true;
  const int64_t offloaded = run_bytes(full, true);
  for (const int64_t device : {offloaded, (kept + offloaded) / 2, kept - 1}) {
    const std::vector<Alternative> list = alternatives(config, device, true, h200());
    ASSERT_EQ(list.size(), 1);
    EXPECT_LE(list[0].bytes, device);
    full = list[0].config;
    EXPECT_TRUE(full.training.offload);
    full.training.offload_layers = offloaded_layers(full) - 1;
    full.training.offload = full.training.offload_layers > 0;
    EXPECT_GT(run_bytes(full, true), device);
  }
  // One that offloads too few.
  full.training.recompute = Recompute::kFull;
  full.training.offload = true;
  full.training.offload_layers = 1;
  const std::vector<Alternative> list = alternatives(full, (kept + offloaded) / 2, true, h200());
  ASSERT_EQ(list.size(), 1);
  EXPECT_EQ(list[0].settings.size(), 1);
  EXPECT_EQ(list[0].settings[0].first, "training.offload_layers");
}

// 8B on one H200: weights, copies and gradients are 75 GiB, moments 60 more.
TEST(AlternativesTest, ALargeModelsMomentsGoToTheHost) {
  RunConfig config;
  config.model = model_preset("llama3-8b");
  config.training.precision = Precision::kBf16;
  config.training.steps = config.training.lighthouse_steps = 100;
  config.attention.topk = 4096;
  const auto options = [&](int64_t seq_len) {
    config.training.seq_len = seq_len;
    const std::vector<Alternative> list = alternatives(config, 139 * kGiB, true, h200());
    return list.empty() ? "" : settings_text(list.front());
  };
  EXPECT_EQ(options(131072), "--training.recompute full --training.offload_optimizer true");
  EXPECT_THAT(options(393216),
              HasSubstr("--training.recompute full --training.offload_optimizer true --training.offload "
                        "true --training.offload_layers "));
  config.training.offload_optimizer = true;
  EXPECT_THAT(options(393216),
              HasSubstr("--training.recompute full --training.offload true --training.offload_layers "));
}

// On 80 GB copies and gradients alone are 45 GiB: the fp32 weights go too.
TEST(AlternativesTest, ALargeModelsWeightsGoToTheHost) {
  RunConfig config;
  config.model = model_preset("llama3-8b");
  config.training.precision = Precision::kBf16;
  config.training.seq_len = 65536;
  config.training.steps = config.training.lighthouse_steps = 100;
  config.training.gradient_accumulation = 2;
  config.attention.topk = 4096;
  const std::vector<Alternative> list = alternatives(config, 79 * kGiB, true, h200());
  ASSERT_FALSE(list.empty());
  EXPECT_EQ(settings_text(list.front()),
            "--training.recompute full --training.offload_optimizer true --training.offload_weights true");
  for (const Alternative& share : shares(config, 2, 79 * kGiB, true, h200(), 8)) {
    EXPECT_TRUE(share.config.training.offload_weights) << settings_text(share);
    EXPECT_LE(share.bytes, 79 * kGiB);
  }
  config.training.precision = Precision::kFp32;
  for (const Alternative& way : alternatives(config, 200 * kGiB, true, h200())) {
    EXPECT_TRUE(!way.config.training.offload_weights || way.config.training.precision == Precision::kBf16);
  }
}

// 4,194,304 tokens: 30 inputs of 8 GiB on the host, where only some of them fit.
TEST(WithinHost, KeepsAsFewInputsAsFit) {
  RunConfig config = paper_config();
  config.training.seq_len = 1 << 22;
  config.training.steps = config.training.lighthouse_steps = 100;
  config.attention.full_attention_layers = {};
  config.attention.num_levels = 4;
  config.attention.topk = 4096;
  config.training.recompute = Recompute::kFull;
  config.training.offload = true;
  const int64_t device = 160 * kGiB;
  ASSERT_LE(run_bytes(config, true), device);
  const Alternative as_it_is{{{"training.offload", "true"}}, config};
  const auto options = [&](int64_t host) {
    const std::vector<Alternative> list = within_host({as_it_is}, device, host, h200());
    EXPECT_LE(list.size(), 1);
    if (!list.empty()) {
      EXPECT_LE(list[0].bytes, device);
      EXPECT_LE(run_host_bytes(list[0].config), host);
    }
    return list.empty() ? "" : settings_text(list[0]);
  };
  EXPECT_EQ(options(256 * kGiB), "--training.offload true");
  EXPECT_EQ(options(240 * kGiB), "--training.offload true --checkpoint.asynchronous false");
  EXPECT_EQ(options(128 * kGiB), "--training.offload true --training.recompute_layers 2");
  EXPECT_EQ(options(120 * kGiB),
            "--training.offload true --checkpoint.asynchronous false --training.recompute_layers 2");
  EXPECT_EQ(options(100 * kGiB), "--training.offload true --training.recompute_layers 3");
  EXPECT_EQ(options(kGiB), "");
}

TEST(AlternativesTest, NoOffloadOnTheCpu) {
  for (const auto& [config, device] : tight_cases()) {
    for (const Alternative& alternative : alternatives(config, device, false, h200())) {
      EXPECT_THAT(settings_text(alternative), Not(HasSubstr("offload")));
    }
  }
}

TEST(LargestSeqLenTest, FitsAndTheNextDoesNot) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    for (const int64_t device : {24 * kGiB, 79 * kGiB, 139 * kGiB}) {
      RunConfig config = paper_config();
      config.training.recompute = recompute;
      config.training.seq_len = largest_seq_len(config, device, true);
      EXPECT_EQ(config.training.seq_len % 1024, 0);
      EXPECT_LE(run_bytes(config, true), device);
      config.training.seq_len += 1024;
      EXPECT_GT(run_bytes(config, true), device);
    }
  }
  EXPECT_EQ(largest_seq_len(paper_config(), kGiB, true), 0);
}

TEST(MemoryAdviceTest, SaysWhatTakesTheMemoryAndWhatFits) {
  const std::string text = memory_advice(paper_config(), {.available = 48 * kGiB});
  EXPECT_THAT(text, HasSubstr("a step of stage 2 takes about "));
  EXPECT_THAT(text, HasSubstr("the device has 48.0 GiB"));
  EXPECT_THAT(text, HasSubstr("kept for backward "));
  EXPECT_THAT(text, HasSubstr("\nfits: --training.recompute "));
  EXPECT_THAT(text, HasSubstr("--training.seq_len "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

TEST(MemoryAdviceTest, WhereItShouldFitAndWhereNothingDoes) {
  EXPECT_THAT(memory_advice(paper_config(), {.available = 139 * kGiB}),
              HasSubstr("that should fit: see with nvidia-smi"));
  EXPECT_THAT(memory_advice(paper_config(), {.available = kGiB}), HasSubstr("a smaller model or more memory"));
}

// Both on a GPU of 140 GiB: 32 GiB between tensors, and a process that had not ended when the next one began.
TEST(MemoryAdviceTest, SaysWhatElseHasTheMemory) {
  EXPECT_THAT(memory_advice(paper_config(), {.available = 138 * kGiB, .others = kGiB, .scattered = 32 * kGiB}),
              AllOf(HasSubstr("the device has 138.0 GiB\n"),
                    HasSubstr("that should fit, but 32.0 GiB lay scattered between tensors: the environment should"),
                    HasSubstr("expandable_segments:True")));
  EXPECT_THAT(memory_advice(paper_config(), {.available = 138 * kGiB, .scattered = 32 * kGiB, .segments_expand = true}),
              HasSubstr("lay scattered between tensors: try --training.recompute selective or full"));
  EXPECT_THAT(memory_advice(paper_config(), {.available = 11 * kGiB, .others = 129 * kGiB}),
              HasSubstr("the device has 11.0 GiB, beside 129.0 GiB of other processes, which nvidia-smi names\n"));
}

TEST(MemoryTextTest, GibAndMib) {
  EXPECT_EQ(memory_text(kGiB), "1.0 GiB");
  EXPECT_EQ(memory_text(20 << 20), "20 MiB");
}

}  // namespace
}  // namespace lighthouse
