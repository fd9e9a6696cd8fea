#include "plan/flops.h"

#include <gtest/gtest.h>

#include "plan_support.h"

namespace lighthouse {
namespace {

TEST(ShapeTest, LayersOfBothStages) {
  const std::vector<LayerShape> layers = layer_shapes(paper_config(), true);
  ASSERT_EQ(layers.size(), 30);
  for (const size_t dense : {0, 1, 28, 29}) {
    EXPECT_FALSE(layers[dense].lighthouse);
    EXPECT_EQ(layers[dense].rows, 98304);
  }
  EXPECT_TRUE(layers[2].lighthouse);
  EXPECT_EQ(layers[2].rows, 18432);                      // N / 16 + 2 * 4 * 1536
  EXPECT_EQ(layers[2].num_slots, 98304 + 24576 + 6144);  // N (1 + 1/4 + 1/16)
  EXPECT_EQ(layers[2].tokens_read, 4 * 1536 * (1 + 4));  // p children of one and of four tokens
  for (const LayerShape& layer : layer_shapes(paper_config(), false)) EXPECT_FALSE(layer.lighthouse);
}

TEST(ShapeTest, ShortSequencesHaveFewerPairs) {
  RunConfig config = small_config();
  config.attention.full_attention_layers = {};
  config.attention.method = AttentionMethod::kShort;
  config.attention.span = 4;
  for (const LayerShape& layer : layer_shapes(config, true)) {
    EXPECT_FALSE(layer.lighthouse);
    EXPECT_EQ(layer.rows, 16);
    EXPECT_EQ(layer.pairs, 4 * 10);  // of 136
  }
  EXPECT_EQ(step_flops(config, false) - step_flops(config, true), 2 * 3.5 * 4 * 4 * 2 * (136 - 40));
}

TEST(ShapeTest, AWindowHasAsManyPairsAsItSees) {
  RunConfig config = small_config();  // layer 0 is dense
  config.attention.method = AttentionMethod::kWindow;
  config.attention.span = 3;
  const std::vector<LayerShape> layers = layer_shapes(config, true);
  EXPECT_EQ(layers[0].pairs, 136);
  EXPECT_EQ(layers[1].pairs, 1 + 2 + 14 * 3);
  config.attention.span = 16;
  EXPECT_EQ(layer_shapes(config, true)[1].pairs, 136);
}

TEST(ShapeTest, WindowLayersStandBetweenLighthouseLayers) {
  RunConfig config = small_config();
  config.attention.full_attention_layers = {};
  const std::vector<LayerShape> lighthouse = layer_shapes(config, true);
  config.attention.window_layers = {1};
  config.attention.span = 3;
  const std::vector<LayerShape> layers = layer_shapes(config, true);
  EXPECT_EQ(layers[0].pairs, lighthouse[0].pairs);
  EXPECT_EQ(layers[0].lighthouse, lighthouse[0].lighthouse);
  EXPECT_FALSE(layers[1].lighthouse);
  EXPECT_EQ(layers[1].pairs, 1 + 2 + 14 * 3);
  EXPECT_EQ(layer_shapes(config, false)[1].pairs, 136);
}

TEST(ShapeTest, EveryLayerHasItsTopk) {
  RunConfig config = paper_config();
  config.attention.topk_per_layer.assign(30, 1536);
  config.attention.topk_per_layer[7] = 3072;
  const std::vector<LayerShape> layers = layer_shapes(config, true);
  EXPECT_EQ(layers[6].rows, 18432);
  EXPECT_EQ(layers[7].rows, 6144 + 2 * 4 * 3072);
}

// One whose sequences would not get shorter costs what a layer of stage 2 does.
TEST(ShapeTest, BudgetsThatKeepEveryTokenAreDense) {
  RunConfig config = small_config();
  config.attention.topk = 4;  // 8 + 2 * 4 rows of 16 tokens
  for (const LayerShape& layer : layer_shapes(config, true)) {
    EXPECT_FALSE(layer.lighthouse);
    EXPECT_EQ(layer.rows, 16);
  }
  EXPECT_EQ(step_flops(config, true), step_flops(config, false));
  config.attention.topk = 3;
  EXPECT_TRUE(layer_shapes(config, true)[1].lighthouse);
}

TEST(ShapeTest, LayerParametersAddUp) {
  for (const std::string& name : model_preset_names()) {
    ModelConfig model = model_preset(name);
    for (const bool qk_norm : {false, true}) {
      model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
      const int64_t embeddings = model.vocab_size * model.dim * (model.tie_embeddings ? 1 : 2);
      EXPECT_EQ(model.num_layers * layer_parameters(model) + embeddings + model.dim, num_parameters(model)) << name;
    }
  }
}

TEST(FlopsTest, SmallModelByHand) {
  const RunConfig config = small_config();
  // A layer: qkv 8 * 16, output 8 * 8, gate, up and down 3 * 8 * 12; the head 8 * 10.
  const double matrices = 2 * (128 + 64 + 288) + 80;
  const double products = 3 * 2 * 16 * matrices;
  const double dense = 3.5 * 4 * 4 * 2 * 136;  // 4 D H for n (n + 1) / 2 pairs
  const double rows = 3.5 * 4 * 4 * 2 * 78;
  EXPECT_EQ(step_flops(config, true), products + dense + rows);
  EXPECT_EQ(step_flops(config, false), products + 2 * dense);
}

TEST(FlopsTest, EverySequenceOfTheStepCounts) {
  RunConfig config = small_config();
  const double one = step_flops(config, true);
  config.training.batch_size = 3;
  config.training.gradient_accumulation = 2;
  EXPECT_EQ(step_flops(config, true), 6 * one);
}

TEST(FlopsTest, RecomputationDoesNotCount) {
  RunConfig config = small_config();
  const double none = step_flops(config, true);
  config.training.recompute = Recompute::kFull;
  config.training.offload = true;
  config.training.deterministic = true;
  EXPECT_EQ(step_flops(config, true), none);
}

TEST(FlopsTest, ScorersCountForwardAndInTheirLayersOnly) {
  RunConfig config = small_config();
  const double norm = step_flops(config, true);
  const double dense = step_flops(config, false);
  config.attention.scorer = Scorer::kDilated;
  config.attention.dilation = 4;
  EXPECT_EQ(step_flops(config, true) - norm, 2 * 4 * 4 * (4 * 2) * (4 * 5 / 2));  // twice, 4 tokens, 4 * 2 heads
  EXPECT_EQ(step_flops(config, false), dense);
  config.attention.scorer = Scorer::kGla;
  EXPECT_EQ(step_flops(config, true) - norm, 2 * 16 * 2 * (4 * 4 * 4));  // two passes, 16 tokens, 2 heads, 4 D^2
}

// docs/architecture in numbers: products of 30 layers are 157 TFLOP, dense attention 69.3 a layer.
TEST(FlopsTest, PaperModel) {
  RunConfig config = paper_config();
  config.training.gradient_accumulation = 1;
  const double attention = 3.5 * 4 * 1024 * (98304.0 * 98305 / 2);
  EXPECT_NEAR(step_flops(config, false), 30 * attention + 157.9e12, 0.2e12);
  EXPECT_NEAR(step_flops(config, true), 4 * attention + 26 * attention * 9 / 256 + 157.9e12, 0.2e12);
}

TEST(PeakFlopsTest, DevicesByTheNameOfTheDriver) {
  EXPECT_EQ(device_peak_flops("NVIDIA H100 80GB HBM3", Precision::kBf16), 989.4e12);
  EXPECT_EQ(device_peak_flops("NVIDIA H100 PCIe", Precision::kBf16), 756e12);
  EXPECT_EQ(device_peak_flops("NVIDIA H200", Precision::kBf16), 989.4e12);
  EXPECT_EQ(device_peak_flops("h200", Precision::kFp32), 66.9e12);
  EXPECT_EQ(device_peak_flops("NVIDIA A100-SXM4-80GB", Precision::kBf16), 312e12);
  EXPECT_EQ(device_peak_flops("NVIDIA B200", Precision::kBf16), 2.25e15);
  EXPECT_EQ(device_peak_flops("NVIDIA L40S", Precision::kBf16), 362e12);
  EXPECT_EQ(device_peak_flops("NVIDIA L4", Precision::kBf16), 121e12);
  EXPECT_EQ(device_peak_flops("AMD EPYC", Precision::kBf16), std::nullopt);
  EXPECT_EQ(device_peak_flops("", Precision::kBf16), std::nullopt);
}

}  // namespace
}  // namespace lighthouse
