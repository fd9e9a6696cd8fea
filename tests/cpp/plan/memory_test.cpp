#include "plan/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "plan/pinned_blocks.h"
#include "plan_support.h"

namespace lighthouse {
namespace {

using testing::HasSubstr;

double gib(int64_t bytes) { return static_cast<double>(bytes) / kGiB; }

TEST(KeptTest, LighthouseLayerOfThePaperByHand) {
  const RunConfig config = paper_config();
  const KeptBytes kept = layer_kept(config, layer_shapes(config, true)[2]);
  EXPECT_EQ(kept.residual, 98304 * 2 * 1024 * 2);
  EXPECT_EQ(kept.norms, 98304 * 8);
  EXPECT_EQ(kept.gate_up, 98304 * 2 * 1536 * 2);
  EXPECT_EQ(kept.qk_norm, 0);
  EXPECT_EQ(kept.attention, 18432 * (4 * 1024 * 2 + 8 * 4) + 8 * (129024 + 18432) * 4);
  EXPECT_NEAR(gib(kept.all()), 1.1, 0.02);
}

TEST(KeptTest, DenseLayerWithGroupedHeadsByHand) {
  RunConfig config = small_config();
  config.model.family = ModelFamily::kQwen3;
  config.training.batch_size = 3;
  const KeptBytes kept = layer_kept(config, layer_shapes(config, true)[0]);
  const int64_t tokens = 3 * 16;
  EXPECT_EQ(kept.residual, tokens * 2 * 8 * 4);
  EXPECT_EQ(kept.gate_up, tokens * 2 * 12 * 4);
  EXPECT_EQ(kept.qk_norm, tokens * ((8 + 4) * 4 + (2 + 1) * 4));      // q of 2 heads, k of 1, and of each its 1 / rms
  EXPECT_EQ(kept.attention, tokens * ((8 + 4 + 4 + 8) * 4 + 2 * 4));  // q, k, v, o, log-sum-exp
  const KeptBytes rows = layer_kept(config, layer_shapes(config, true)[1]);
  EXPECT_EQ(rows.attention, 3 * (12 * ((8 + 4 + 4 + 8) * 4 + 2 * 4) + (16 + 8 + 12) * 4));
}

TEST(MemoryTest, WhatStaysThroughTheStep) {
  const StepMemory memory = step_memory(paper_config(), kStage2, true);
  EXPECT_EQ(memory.weights, 267'973'632 * int64_t{4});
  EXPECT_EQ(memory.moments, 2 * memory.weights);
  const int64_t norms = 30 * 2 * 1024 + 1024;
  EXPECT_EQ(memory.copies, (267'973'632 - norms) * int64_t{2});
  EXPECT_EQ(memory.host, memory.weights + memory.moments);  // what checkpoints are written from
  RunConfig fp32 = paper_config();
  fp32.training.precision = Precision::kFp32;
  EXPECT_EQ(step_memory(fp32, kStage2, true).copies, 0);
  fp32.checkpoint.asynchronous = false;
  EXPECT_EQ(step_memory(fp32, kStage2, true).host, 0);
}

TEST(MemoryTest, PaperFitsWhereItIsKnownToFit) {
  const RunConfig config = paper_config();
  const StepMemory lighthouse = step_memory(config, kStage1, true);
  EXPECT_GT(gib(lighthouse.total()), 41);
  EXPECT_LT(gib(lighthouse.total()), 45);
  EXPECT_THAT(lighthouse.peak, HasSubstr("layer 29 (dense)"));
  const StepMemory dense = step_memory(config, kStage2, true);
  const double kept_more = 26 * (gib(98304 * int64_t{4} * 1024 * 2) - 0.15);  // 26 layers more with q, k, v and o
  EXPECT_NEAR(gib(dense.total() - lighthouse.total()), kept_more, 1.0);
}

// Gradients come as what was kept goes; accumulated ones are there all along.
TEST(MemoryTest, GradientsAtThePeak) {
  RunConfig config = paper_config();
  EXPECT_EQ(step_memory(config, kStage2, true).gradients, 267'973'632 * int64_t{4});
  config.training.gradient_accumulation = 1;
  const int64_t layer = 4 * (int64_t{1024} * (4 * 1024 + 3 * 1536) + 2 * 1024);
  EXPECT_EQ(step_memory(config, kStage2, true).gradients, layer + 256 * 1024 * 4);  // of the last layer and the head
}

// Ranks exchange gradients while backward goes on: two buckets of 128 MiB, each sent and received.
TEST(MemoryTest, GradientsUnderWayAreThereInBackward) {
  RunConfig config = paper_config();
  const StepMemory alone = step_memory(config, kStage2, true);
  config.parallel.data = 2;
  const StepMemory two = step_memory(config, kStage2, true);
  EXPECT_EQ(two.peak, alone.peak);
  EXPECT_EQ(two.temporaries - alone.temporaries, kGiB / 2);
}

TEST(MemoryTest, ShortSequencesTakeMostAtTheEnd) {
  RunConfig config = paper_config();
  config.training.gradient_accumulation = 1;
  config.training.seq_len = 64;
  const StepMemory memory = step_memory(config, kStage2, true);
  EXPECT_THAT(memory.peak, HasSubstr("layer 0"));
  EXPECT_NEAR(gib(memory.gradients), 1.0, 0.01);
}

TEST(MemoryTest, ALargeVocabularyTakesMostInTheLoss) {
  RunConfig config = small_config();
  config.model.vocab_size = 128256;
  config.training.seq_len = 65536;
  config.attention.topk = 64;
  const StepMemory memory = step_memory(config, kStage1, true);
  EXPECT_EQ(memory.peak, "the loss");
  EXPECT_NEAR(gib(memory.temporaries), 1.0, 0.01);  // a chunk of logits
}

TEST(MemoryTest, RecomputationKeepsLess) {
  for (const bool lighthouse : {kStage1, kStage2}) {
    RunConfig config = paper_config();
    std::vector<int64_t> totals;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      config.training.recompute = recompute;
      totals.push_back(step_memory(config, lighthouse, true).total());
    }
    config.training.offload = true;
    const StepMemory offloaded = step_memory(config, lighthouse, true);
    totals.push_back(offloaded.total());
    EXPECT_TRUE(std::is_sorted(totals.rbegin(), totals.rend())) << testing::PrintToString(totals);
    EXPECT_EQ(offloaded.host - step_memory(paper_config(), lighthouse, true).host, 30 * int64_t{98304} * 1024 * 2);
  }
}

// The larger half of backward. Of the feed-forward: the gradients of its normed input and of F, gate and up of a tile,
// and with full recomputation what else the layer keeps and what the norm has made. Of dense attention: twice the
// gradients of q, k and v and that of the normed input, without what the feed-forward has kept; with full recomputation
// also the gradient that came and what attention keeps.
TEST(MemoryTest, WhatIsComputedAgainIsThereForOneLayer) {
  RunConfig config = paper_config();
  for (const int64_t tokens : {int64_t{1} << 20, int64_t{1} << 22}) {
    config.training.seq_len = tokens;
    const KeptBytes kept = layer_kept(config, layer_shapes(config, false)[0]);
    const int64_t tile = int64_t{1} << 20;
    const int64_t vector = tokens * 1024 * 2;
    const int64_t feed_forward = vector + tile * 3 * 1536 * 2;
    config.training.recompute = Recompute::kSelective;
    const int64_t attention = 7 * vector;
    EXPECT_EQ(step_memory(config, kStage2, true).temporaries, std::max(feed_forward, attention - vector));
    config.training.recompute = Recompute::kFull;
    const int64_t again = kept.all() - kept.gate_up - vector;
    EXPECT_EQ(step_memory(config, kStage2, true).temporaries, std::max(feed_forward + vector, attention) + again);
  }
}

// 30 inputs of layers, 2.1 GB each, at 1,048,576 tokens; offloaded, two of them stay.
/// A million tokens of the paper's model, of which each layer keeps its input, in so many bytes; no copies for
/// checkpoints.
RunConfig inputs_only() {
  RunConfig config = paper_config();
  config.training.seq_len = 1 << 20;
  config.training.recompute = Recompute::kFull;
  config.checkpoint.asynchronous = false;
  return config;
}
constexpr int64_t kInput = (int64_t{1} << 20) * 1024 * 2;

TEST(MemoryTest, FullRecomputationKeepsInputsOnly) {
  RunConfig config = inputs_only();
  const int64_t tokens = (int64_t{1} << 20) * (16 + 128 * 4);  // and their rotation
  EXPECT_EQ(step_memory(config, kStage1, true).kept, 31 * kInput + tokens);
  config.training.offload = true;
  EXPECT_EQ(step_memory(config, kStage1, true).kept, 3 * kInput + tokens);
}

// The first layers' inputs are on the host, and of those that backward comes to one or two on the device.
TEST(MemoryTest, OffloadedLayersTakeHostMemoryInstead) {
  RunConfig config = inputs_only();
  const int64_t none = step_memory(config, kStage1, true).allocated();
  config.training.offload = true;
  int64_t before = none;
  for (const int64_t count : {1, 10, 29, 30}) {
    config.training.offload_layers = count;
    const StepMemory memory = step_memory(config, kStage1, true);
    EXPECT_EQ(memory.host, count * kInput) << count;
    EXPECT_LE(memory.allocated(), before) << count;
    EXPECT_GE(memory.allocated(), none - count * kInput) << count;
    before = memory.allocated();
  }
  EXPECT_LE(before, none - 27 * kInput);
  config.training.offload_layers = 0;
  EXPECT_EQ(step_memory(config, kStage1, true).allocated(), before);
}

// In the backward of the last layer those that its input was followed to are there as well.
TEST(MemoryTest, SeveralLayersKeepOneInput) {
  RunConfig config = inputs_only();
  const int64_t each = step_memory(config, kStage1, true).kept;
  for (const int64_t together : {2, 3, 30}) {
    config.training.recompute_layers = together;
    EXPECT_EQ(step_memory(config, kStage1, true).kept, each - (30 - 30 / together) * kInput + (together - 1) * kInput)
        << together;
  }
  config.training.offload = true;
  for (const int64_t together : {1, 2, 3, 4, 30}) {
    config.training.recompute_layers = together;
    EXPECT_EQ(step_memory(config, kStage1, true).host, (30 + together - 1) / together * kInput) << together;
  }
  config.training.recompute_layers = 4;
  config.training.offload_layers = 9;  // inputs of layers 0, 4 and 8
  EXPECT_EQ(step_memory(config, kStage1, true).host, 3 * kInput);
}

TEST(MemoryTest, MomentsOnTheHostTakeNothingOfTheDevice) {
  RunConfig config = inputs_only();
  const StepMemory on_device = step_memory(config, kStage1, true);
  const int64_t total_on_cpu = step_memory(config, kStage1, false).total();
  config.training.offload_optimizer = true;
  const StepMemory on_host = step_memory(config, kStage1, true);
  EXPECT_EQ(on_host.moments, 0);
  EXPECT_EQ(on_host.host, on_device.moments);
  EXPECT_EQ(on_host.allocated(), on_device.allocated() - on_device.moments);
  EXPECT_EQ(step_memory(config, kStage1, false).total(), total_on_cpu) << "one memory";
  config.training.offload_optimizer = false;
  config.checkpoint.asynchronous = true;
  const int64_t copies = step_memory(config, kStage1, true).host;
  config.training.offload_optimizer = true;
  EXPECT_EQ(step_memory(config, kStage1, true).host, copies + on_device.moments);
}

TEST(MemoryTest, WeightsOnTheHostLeaveTheirCopies) {
  RunConfig config = inputs_only();
  config.training.offload_optimizer = true;
  const StepMemory before = step_memory(config, kStage1, true);
  config.training.offload_weights = true;
  const StepMemory after = step_memory(config, kStage1, true);
  EXPECT_EQ(after.host - before.host, 2 * before.copies) << "fp32 of what there are bf16 copies of";
  EXPECT_EQ(before.weights - after.weights, 2 * before.copies);
  EXPECT_EQ(after.copies, before.copies);
  config.checkpoint.asynchronous = true;
  EXPECT_EQ(step_memory(config, kStage1, true).host, after.host + before.weights + before.host);
}

// Where the update is the peak, three parts of both moments pass through it.
TEST(MemoryTest, MomentsPassThroughTheOptimizersPeak) {
  RunConfig config = paper_config();
  config.training.seq_len = 64;
  config.training.offload_optimizer = true;
  const StepMemory memory = step_memory(config, kStage2, true);
  ASSERT_EQ(memory.peak, "the optimizer");
  EXPECT_EQ(memory.temporaries, int64_t{3 * 2 * 4} << 24);
  config.training.offload_weights = true;
  EXPECT_EQ(step_memory(config, kStage2, true).temporaries, int64_t{3 * 3 * 4} << 24);
}

TEST(PinnedBlocks, ArePowersOfTwoThatHoldLittleMoreThanIsAskedFor) {
  EXPECT_EQ(pinned_blocks(0), std::vector<int64_t>());
  EXPECT_EQ(pinned_blocks(1), (std::vector<int64_t>{4096}));
  EXPECT_EQ(pinned_blocks(192 << 20), (std::vector<int64_t>{128 << 20, 64 << 20}));
  for (int64_t bytes = 1; bytes < int64_t{1} << 40; bytes += 1 + bytes / 7) {
    const std::vector<int64_t> blocks = pinned_blocks(bytes);
    EXPECT_LE(blocks.size(), 6) << bytes;
    int64_t sum = 0, before = int64_t{1} << 40;
    for (const int64_t block : blocks) {
      EXPECT_TRUE(std::has_single_bit(static_cast<uint64_t>(block))) << bytes;
      EXPECT_LT(block, before) << bytes;
      EXPECT_LT(sum, bytes) << "no block is empty";
      before = block;
      sum += block;
    }
    EXPECT_GE(sum, bytes);
    EXPECT_LE(sum, std::max(bytes + bytes / 32, (bytes + 4095) / 4096 * 4096)) << bytes;
  }
}

// 100,352 tokens of 1,024 channels in bf16 are 196 MiB, which torch alone would make 256.
TEST(MemoryTest, PinnedMemoryIsThatOfItsBlocks) {
  RunConfig config = paper_config();
  config.training.seq_len = 100352;
  config.training.recompute = Recompute::kFull;
  config.training.offload = true;
  config.checkpoint.asynchronous = false;
  EXPECT_EQ(step_memory(config, kStage1, true).host, 30 * int64_t{196} << 20);
  config.training.seq_len = 100352 + 64;
  EXPECT_EQ(step_memory(config, kStage1, true).host, 30 * int64_t{200} << 20);
}

// Where a scorer of its own selects: 26 layers' rows and entries of 8 heads. 98,304 + 24,576 + 6,144 entries.
TEST(MemoryTest, FullRecomputationKeepsTheSelectionToo) {
  RunConfig config = paper_config();
  config.training.recompute = Recompute::kFull;
  const auto kept = [&](Scorer scorer) {
    config.attention.scorer = scorer;
    return step_memory(config, kStage1, true).kept;
  };
  const int64_t selections = 26 * int64_t{8} * (129024 + 18432) * 4;
  EXPECT_EQ(kept(Scorer::kDilated), kept(Scorer::kNorm) + selections);
  EXPECT_EQ(kept(Scorer::kGla), kept(Scorer::kDilated));
  config.model.family = ModelFamily::kQwen3;
  EXPECT_EQ(kept(Scorer::kNorm), kept(Scorer::kDilated));
}

TEST(MemoryTest, DeterministicWorkspaces) {
  RunConfig config = paper_config();
  config.attention.full_attention_layers = {};
  const int64_t dq = int64_t{18432} * 1024 * 4;
  EXPECT_EQ(step_memory(config, kStage1, true).workspace, dq);
  config.training.deterministic = true;
  EXPECT_EQ(step_memory(config, kStage1, true).workspace, dq + 2 * int64_t{18432} * 18432 * 2);  // two heads
  EXPECT_EQ(step_memory(config, kStage2, true).workspace,  // three blocks of 32,768 rows, one head at a time
            int64_t{98304} * 1024 * 4 + int64_t{32768} * 1024 * 18 + 2 * int64_t{32768} * 32768);
  EXPECT_EQ(step_memory(config, kStage2, false).workspace, 0);
  config.training.precision = Precision::kFp32;
  EXPECT_EQ(step_memory(config, kStage2, true).workspace, 17 * int64_t{98304} * 1024 * 4);  // ceil(132 / 8) splits
}

struct Growth {
  const char* name;
  std::function<void(RunConfig&)> change;
};
void PrintTo(const Growth& growth, std::ostream* stream) { *stream << growth.name; }

class GrowthTest : public testing::TestWithParam<Growth> {};
TEST_P(GrowthTest, TakesMore) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    RunConfig config = paper_config();
    config.training.recompute = recompute;
    RunConfig larger = config;
    GetParam().change(larger);
    for (const bool on_cuda : {true, false}) EXPECT_GT(run_bytes(larger, on_cuda), run_bytes(config, on_cuda));
  }
}
const Growth kGrowths[] = {
    {"seq_len", [](RunConfig& config) { config.training.seq_len += 1024; }},
    {"batch", [](RunConfig& config) { config.training.batch_size = 2; }},
    {"layers", [](RunConfig& config) { config.model.num_layers += 1; }},
    {"dim", [](RunConfig& config) { config.model.dim += 64; }},
    {"ffn", [](RunConfig& config) { config.model.ffn_dim *= 4; }},
    {"vocabulary", [](RunConfig& config) { config.model.vocab_size = 128256; }},
    {"heads", [](RunConfig& config) { config.model.num_heads = config.model.num_kv_heads = 16; }},
    {"fp32", [](RunConfig& config) { config.training.precision = Precision::kFp32; }},
};
INSTANTIATE_TEST_SUITE_P(Keys, GrowthTest, testing::ValuesIn(kGrowths),
                         [](const auto& growth) { return std::string(growth.param.name); });

TEST(MemoryTest, StagesThatARunHas) {
  RunConfig config = paper_config();
  EXPECT_EQ(stages_of(config.training), (std::vector<bool>{true, false}));
  config.training.lighthouse_steps = config.training.steps;
  EXPECT_EQ(stages_of(config.training), std::vector<bool>{true});
  EXPECT_EQ(run_bytes(config, true), step_memory(config, kStage1, true).total());
  config.training.lighthouse_steps = 0;
  EXPECT_EQ(stages_of(config.training), std::vector<bool>{false});
}

TEST(MemoryTest, WhatCannotBeCountedIsRefused) {
  RunConfig config = paper_config();
  config.training.seq_len = int64_t{1} << 30;
  config.training.batch_size = int64_t{1} << 20;
  EXPECT_THROW(step_memory(config, kStage2, true), std::invalid_argument);
}

}  // namespace
}  // namespace lighthouse
