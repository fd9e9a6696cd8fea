#include <gtest/gtest.h>

#include <set>

#include "config/schema.h"

namespace lighthouse {
namespace {

/// Every field differs from its default, so that one without a key would not survive; texts need care in TOML.
RunConfig unusual_config() {
  RunConfig config;
  config.model = {ModelFamily::kSmolLm3,
                  300,
                  96,
                  5,
                  6,
                  3,
                  18,
                  100,
                  1234.5678901234567,
                  RopeScaling::kYarn,
                  7.5,
                  4096,
                  1,
                  4,
                  16,
                  2,
                  0.5,
                  {1, 3},
                  1e-300,
                  true,
                  0.1};
  config.attention = {AttentionMethod::kWindow, 77, 8, 16, 7, 9, false, Scorer::kGla, 3, {4, 0, 2}, {3, 1},
                      {1, 2, 3, 4, 5}};
  config.training = {1000,
                     999,
                     1 << 30,
                     2,
                     3,
                     Accumulation::kTree,
                     INT64_MAX,
                     "my \"model\"",
                     InitialRope::kChanged,
                     Precision::kBf16,
                     DeviceChoice::kCpu,
                     5,
                     Recompute::kFull,
                     true,
                     true};
  config.parallel = {2, 4, 60};
  config.optimizer = {1.0 / 3, 0, 0.999999999, 1e-8, 1e22, 0, Schedule::kWsd, 1, 10, 0};
  config.data = {"a \"quoted\" \\ path\n\t\x7f \xc3\xa9",
                 {"a=1", "b=2"},
                 CorpusFormat::kMegatron,
                 {".h", "", ".\"cpp\""},
                 Packing::kDocuments,
                 0,
                 "v",
                 0};
  config.validation = {0, 1};
  config.checkpoint = {0, 1};
  config.logging = {"runs/#1", 1000, false, 0};
  return config;
}

TEST(ConfigTest, WrittenAndReadBackIsEqual) {
  for (const RunConfig& config : {RunConfig{}, unusual_config()}) {
    RunConfig read;
    apply_toml(read, to_toml(config), "config.toml");
    EXPECT_EQ(read, config) << to_toml(config);
  }
}

TEST(ConfigTest, DefaultsAndPresetsAreValid) {
  EXPECT_NO_THROW(validate(RunConfig{}));
  for (const std::string& name : model_preset_names()) {
    RunConfig config;
    config.model = model_preset(name);
    EXPECT_NO_THROW(validate(config)) << name;
  }
}

TEST(ConfigTest, EveryKeyHasHelpTypeAndDefault) {
  std::set<std::string> names;
  for (const KeyInfo& key : config_keys()) {
    EXPECT_FALSE(key.help.empty()) << key.key;
    EXPECT_FALSE(key.type.empty()) << key.key;
    EXPECT_FALSE(key.default_value.empty()) << key.key;
    EXPECT_EQ(key.help.find('\n'), std::string::npos) << key.key;
    EXPECT_TRUE(names.insert(key.key).second) << key.key << " is listed twice";
  }
}

TEST(ConfigTest, OverridesSetEveryType) {
  RunConfig config;
  apply_overrides(config, {{"training.steps", "7"},
                           {"optimizer.learning_rate", "3e-4"},
                           {"optimizer.clip_norm", "2"},
                           {"logging.tensorboard", "false"},
                           {"data.path", ""},
                           {"data.path", "with spaces, and commas"},
                           {"data.extensions", ".h,.cpp"},
                           {"attention.full_attention_layers", "0,1,28,29"},
                           {"attention.topk_per_layer", ""}});
  RunConfig in_brackets = config;
  apply_overrides(in_brackets, {{"attention.full_attention_layers", "[0, 1, 28, 29]"}});
  EXPECT_EQ(in_brackets, config);
  apply_overrides(in_brackets, {{"attention.full_attention_layers", "[]"}});
  EXPECT_TRUE(in_brackets.attention.full_attention_layers.empty());
  EXPECT_EQ(config.training.steps, 7);
  EXPECT_EQ(config.optimizer.learning_rate, 3e-4);
  EXPECT_EQ(config.optimizer.clip_norm, 2.0);
  EXPECT_FALSE(config.logging.tensorboard);
  EXPECT_EQ(config.data.path, "with spaces, and commas");
  EXPECT_EQ(config.data.extensions, (std::vector<std::string>{".h", ".cpp"}));
  EXPECT_EQ(config.attention.full_attention_layers, (std::vector<int64_t>{0, 1, 28, 29}));
  EXPECT_TRUE(config.attention.topk_per_layer.empty());
}

TEST(ConfigTest, ExplicitKeysWinOverThePresetInAnyOrder) {
  for (const char* text : {"[model]\npreset = 'paper'\nnum_layers = 3\n", "[model]\nnum_layers = 3\npreset = 'paper'\n",
                           "model.num_layers = 3\nmodel.preset = 'paper'\n"}) {
    RunConfig config;
    apply_toml(config, text, "small.toml");
    ModelConfig expected = model_preset("paper");
    expected.num_layers = 3;
    EXPECT_EQ(config.model, expected) << text;
  }
  RunConfig config;
  apply_overrides(config, {{"model.num_layers", "3"}, {"model.preset", "paper"}});
  EXPECT_EQ(config.model.num_layers, 3);
  EXPECT_EQ(config.model.dim, 1024);
}

TEST(ConfigTest, APresetOnTheCommandLineReplacesTheFilesModel) {
  RunConfig config;
  apply_toml(config, "[model]\ndim = 64\n", "small.toml");
  apply_overrides(config, {{"model.preset", "paper"}});
  EXPECT_EQ(config.model, model_preset("paper"));
}

TEST(ConfigTest, ParameterCounts) {
  EXPECT_EQ(num_parameters(model_preset("llama3-8b")), 8'030'261'248);  // as published
  EXPECT_EQ(num_parameters(model_preset("llama3-1b")), 1'235'814'400);  // as published
  EXPECT_EQ(num_parameters(model_preset("paper")), 267'973'632);
  EXPECT_EQ(num_parameters(model_preset("base")), 97'143'552);
  EXPECT_EQ(num_parameters(model_preset("small")), 9'638'784);
  EXPECT_EQ(num_parameters(model_preset("tiny")), 853'120);
  EXPECT_EQ(model_preset("tiny"), ModelConfig{});
  ModelConfig with_qk_norm;
  with_qk_norm.family = ModelFamily::kQwen3;
  EXPECT_EQ(num_parameters(with_qk_norm), 853'120 + 4 * 2 * 32);  // layers * (q, k) * head_dim
  ModelConfig with_biases;
  with_biases.family = ModelFamily::kQwen2;
  EXPECT_EQ(num_parameters(with_biases), 853'120 + 4 * (4 + 2 + 2) * 32);  // layers * (q, k, v heads) * head_dim
}

TEST(ConfigTest, FilesFromBeforeThereWereFamiliesRead) {
  RunConfig config;
  apply_toml(config, "[model]\nqk_norm = false\n", "old.toml");
  EXPECT_EQ(config, RunConfig{});
  apply_toml(config, "[model]\nqk_norm = true\n", "old.toml");
  EXPECT_EQ(config.model.family, ModelFamily::kQwen3);
  EXPECT_EQ(to_toml(config).find("qk_norm ="), std::string::npos);
}

TEST(NearestNameTest, OneThirdOfTheLettersMayBeWrong) {
  const std::vector<std::string> known = {"train", "generate", "export", "info", "eval"};
  EXPECT_EQ(nearest_name("trian", known), "train");
  EXPECT_EQ(nearest_name("exprot", known), "export");
  EXPECT_EQ(nearest_name("generat", known), "generate");
  EXPECT_EQ(nearest_name("evall", known), "eval");
  EXPECT_EQ(nearest_name("completely", known), "");
  EXPECT_EQ(nearest_name("", known), "");
  EXPECT_EQ(nearest_name(std::string(1 << 20, 'a'), known), "");
  EXPECT_EQ(nearest_name("train", {}), "");
}

}  // namespace
}  // namespace lighthouse
