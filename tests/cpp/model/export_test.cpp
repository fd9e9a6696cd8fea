// Weights from checkpoints and Hugging Face folders; what is refused. tests/python/test_export.py compares with
// transformers.
#include "model/export.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cpp/io/temporary_folder.h"
#include "cpp/model/model_support.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "model/import.h"
#include "model/model_io.h"
#include "model/tensor_file.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

AttentionConfig gla() {
  AttentionConfig attention;
  attention.scorer = Scorer::kGla;
  return attention;
}

NamedTensors clones(const Decoder& decoder) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : decoder.parameters()) tensors.emplace_back(name, tensor.detach().clone());
  for (const auto& [name, tensor] : decoder.buffers()) tensors.emplace_back(name, tensor.clone());
  return tensors;
}

bool same_weights(const Decoder& a, const Decoder& b) {
  const NamedTensors x = clones(a);
  const NamedTensors y = clones(b);
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& left, const auto& right) {
    return left.first == right.first && same_bits(left.second, right.second);
  });
}

TEST(LoadParameters, CopiesParametersAndBuffers) {
  const Decoder from(small_model(), gla(), 1);
  Decoder to(small_model(), gla(), 2);
  ASSERT_FALSE(same_weights(from, to));
  load_parameters(to, clones(from));
  EXPECT_TRUE(same_weights(from, to));
  EXPECT_TRUE(to.parameters().front().second.requires_grad());
}

TEST(LoadParameters, RefusesWhatDoesNotFitAndChangesNothing) {
  const Decoder from(small_model(), gla(), 1);
  Decoder to(small_model(), gla(), 2);
  const NamedTensors before = clones(to);
  const auto message = [&](const std::function<void(NamedTensors&)>& change) {
    NamedTensors tensors = clones(from);
    change(tensors);
    return message_of([&] { load_parameters(to, tensors); });
  };
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors.erase(tensors.begin()); }),
              AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("missing")));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors.pop_back(); }),
              AllOf(HasSubstr("model.layers.1.self_attn.gate.weight"), HasSubstr("missing")));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors.emplace_back("extra\n", at::ones({1})); }),
              AllOf(HasSubstr(R"("extra\n")"), HasSubstr("not one of the model's")));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors.push_back(tensors.front()); }), HasSubstr("given twice"));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors[1].second = at::ones({23}); }),
              AllOf(HasSubstr("input_layernorm"), HasSubstr("[23]"), HasSubstr("[24]")));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors[1].second = at::ones({24}, at::kLong); }),
              HasSubstr("not floating-point"));
  EXPECT_THAT(message([](NamedTensors& tensors) { tensors[1].second = at::Tensor(); }), HasSubstr("floating-point"));
  EXPECT_TRUE(same_weights(to, Decoder(small_model(), gla(), 2)));
}

TEST(Export, LoadsBackWithTheSameBits) {
  const TemporaryFolder folder;
  for (const bool qk_norm : {false, true}) {
    for (const bool tied : {false, true}) {
      ModelConfig model = small_model();
      model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
      model.tie_embeddings = tied;
      const Decoder decoder(model, gla(), 3);
      spread_norms(decoder);
      const fs::path target = folder / (std::to_string(qk_norm) + std::to_string(tied)) / "model";
      EXPECT_THAT(export_huggingface(decoder, target / ""),
                  ElementsAre(target / "model.safetensors", target / "config.json", target / "generation_config.json"));
      EXPECT_EQ(count_entries(target), 3U);
      EXPECT_EQ(count_entries(target.parent_path()), 1U);
      const Decoder loaded = load_huggingface(target);
      EXPECT_EQ(loaded.config(), model);
      EXPECT_TRUE(same_weights(loaded, [&] {
        Decoder plain(model, {}, 4);
        load_parameters(plain, {decoder.parameters().begin(), decoder.parameters().end()});
        return plain;
      }()));
    }
  }
}

TEST(Export, ReplacesOnlyAnExportAndOnlyWhenTold) {
  const TemporaryFolder folder;
  const fs::path target = folder / "model";
  fs::create_directories(target);
  const Decoder first(small_model(), {}, 1);
  const Decoder second(small_model(), {}, 2);
  export_huggingface(first, target);  // an empty folder is fine
  EXPECT_THAT(message_of([&] { export_huggingface(second, target); }),
              AllOf(HasSubstr("not empty"), HasSubstr("model")));
  EXPECT_TRUE(same_weights(load_huggingface(target), first));
  export_huggingface(second, target, {.overwrite = true});
  EXPECT_TRUE(same_weights(load_huggingface(target), second));
  write_bytes(target / "notes.txt", "mine");
  EXPECT_THAT(message_of([&] { export_huggingface(first, target, {.overwrite = true}); }), HasSubstr("notes.txt"));
  EXPECT_EQ(read_bytes(target / "notes.txt"), "mine");
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

// They were an error of the JSON library's that named no file.
TEST(Export, NamesSettingsOfTheOriginThatAreNoObjects) {
  const TemporaryFolder folder;
  const Decoder decoder(small_model(), {}, 1);
  for (const char* name : {"generation_config.json", "config.json"}) {
    const TemporaryFolder origin;
    write_bytes(origin / name, "[1]");
    ExportOptions options;
    options.origin = origin.path();
    EXPECT_THAT(message_of<DamagedFile>([&] { export_huggingface(decoder, folder / "model", options); }),
                AllOf(HasSubstr(name), HasSubstr("not a JSON object")));
  }
}

TEST(Export, RefusesWrongTargetsAndOptions) {
  const TemporaryFolder folder;
  const Decoder decoder(small_model(), {}, 1);
  write_bytes(folder / "file", "x");
  EXPECT_THAT(message_of([&] { export_huggingface(decoder, folder / "file"); }), HasSubstr("not a folder"));
  EXPECT_THAT(message_of([&] { export_huggingface(decoder, ""); }), HasSubstr("no folder"));
  const auto options = [&](const ExportOptions& wrong) {
    return message_of([&] { export_huggingface(decoder, folder / "out", wrong); });
  };
  EXPECT_THAT(options({.dtype = at::kHalf}), HasSubstr("Half"));
  EXPECT_THAT(options({.max_positions = 0}), HasSubstr("max_positions 0"));
  ModelConfig model = small_model();
  model.dim = 22;
  EXPECT_THAT(message_of([&] { export_huggingface(Decoder(model, {}, 1), folder / "out"); }),
              AllOf(HasSubstr("model.dim = 22"), HasSubstr("transformers")));
  EXPECT_THAT(message_of<std::system_error>([&] { export_huggingface(decoder, "/proc/out"); }), HasSubstr("/proc"));
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

/// A folder with a good export, whose files a test then spoils.
class LoadHuggingface : public ::testing::Test {
 protected:
  LoadHuggingface() { export_huggingface(Decoder(small_model(), {}, 1), folder()); }
  fs::path folder() const { return temporary_ / "model"; }

  void change_config(const std::function<void(json&)>& change) const {
    json config = json::parse(read_bytes(folder() / "config.json"));
    change(config);
    write_bytes(folder() / "config.json", config.dump());
  }
  /// The message for config.json with one key changed.
  std::string unsupported(const char* key, const json& value) const {
    const std::string good = read_bytes(folder() / "config.json");
    change_config([&](json& config) { config[key] = value; });
    const std::string message = message_of([&] { load_huggingface(folder()); });
    write_bytes(folder() / "config.json", good);
    EXPECT_THAT(message, HasSubstr("config.json"));
    return message;
  }
  std::string damaged() const {
    return message_of<DamagedFile>([&] { load_huggingface(folder()); });
  }

  TemporaryFolder temporary_;
};

TEST_F(LoadHuggingface, RefusesModelsThatItCannotRun) {
  EXPECT_THAT(unsupported("model_type", "gpt2"), AllOf(HasSubstr("model_type = \"gpt2\""), HasSubstr("qwen3")));
  EXPECT_THAT(unsupported("hidden_act", "gelu"), HasSubstr("hidden_act = \"gelu\""));
  EXPECT_THAT(unsupported("attention_bias", true), HasSubstr("attention_bias = true"));
  EXPECT_THAT(unsupported("mlp_bias", true), HasSubstr("mlp_bias"));
  EXPECT_THAT(unsupported("use_sliding_window", true), HasSubstr("use_sliding_window"));
  EXPECT_THAT(unsupported("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor = 0.5"));
  EXPECT_THAT(unsupported("rope_parameters", {{"rope_type", "longrope"}, {"factor", 8}}), HasSubstr("longrope"));
  EXPECT_THAT(unsupported("rope_scaling", {{"type", "su"}, {"factor", 2}}), HasSubstr("type = \"su\""));
  EXPECT_THAT(unsupported("num_attention_heads", 0), HasSubstr("num_attention_heads = 0"));
}

TEST_F(LoadHuggingface, ReadsConfigurationsOfTransformers4) {
  change_config([](json& config) {
    config.erase("rope_parameters");
    config["rope_scaling"] = nullptr;
    config["rope_theta"] = 12345;
    config.erase("head_dim");
    config["num_attention_heads"] = 4;
    config["hidden_size"] = 24;
  });
  // head_dim is now 24 / 4 = 6, which the weights are not
  EXPECT_THAT(message_of([&] { load_huggingface(folder()); }),
              AllOf(HasSubstr("q_proj"), HasSubstr("[32, 24]"), HasSubstr("[24, 24]")));
  change_config([](json& config) { config["head_dim"] = 8; });
  EXPECT_EQ(load_huggingface(folder()).config().rope_theta, 12345);
}

TEST_F(LoadHuggingface, KnowsForHowManyPositions) {
  const auto positions = [&](const json& rope) {
    change_config([&](json& config) {
      config["max_position_embeddings"] = 1000;
      config["rope_scaling"] = config["rope_parameters"] = nullptr;
      if (!rope.is_null()) config["rope_scaling"] = rope;
    });
    return read_huggingface_positions(folder());
  };
  EXPECT_EQ(positions(nullptr), 1000);
  EXPECT_EQ(positions({{"rope_type", "linear"}, {"factor", 4}}), 4000);
  EXPECT_EQ(positions({{"rope_type", "dynamic"}, {"factor", 4}}), 4000);
  EXPECT_EQ(positions({{"rope_type", "yarn"}, {"factor", 8}, {"original_max_position_embeddings", 500}}), 4000);
  EXPECT_EQ(positions({{"rope_type", "llama3"},
                       {"factor", 8},
                       {"original_max_position_embeddings", 100},
                       {"low_freq_factor", 1},
                       {"high_freq_factor", 4}}),
            1000);
  change_config([](json& config) {
    config.erase("max_position_embeddings");
    config.erase("rope_scaling");
  });
  EXPECT_EQ(read_huggingface_positions(folder()), 0);
}

TEST_F(LoadHuggingface, NamesWhatIsDamaged) {
  const std::string good = read_bytes(folder() / "config.json");
  write_bytes(folder() / "config.json", "{");
  EXPECT_THAT(damaged(), HasSubstr("config.json"));
  write_bytes(folder() / "config.json", "[]");
  EXPECT_THAT(damaged(), HasSubstr("not a JSON object"));
  write_bytes(folder() / "config.json", good);
  change_config([](json& config) { config.erase("hidden_size"); });
  EXPECT_THAT(damaged(), HasSubstr("hidden_size is missing"));
  change_config([](json& config) { config["hidden_size"] = "24"; });
  EXPECT_THAT(damaged(), HasSubstr("hidden_size = \"24\" has the wrong type"));
  write_bytes(folder() / "config.json", good);
  change_config([](json& config) { config["rope_parameters"] = 3; });
  EXPECT_THAT(damaged(), HasSubstr("rope_parameters is not an object"));
  write_bytes(folder() / "config.json", good);
  const std::string weights = read_bytes(folder() / "model.safetensors");
  write_bytes(folder() / "model.safetensors", weights.substr(0, weights.size() - 4));
  EXPECT_THAT(damaged(), HasSubstr("model.safetensors"));
}

TEST_F(LoadHuggingface, NamesMissingFiles) {
  const auto missing = [&] { return message_of<std::system_error>([&] { load_huggingface(folder()); }); };
  fs::remove(folder() / "model.safetensors");
  EXPECT_THAT(missing(), HasSubstr("model.safetensors"));
  const fs::path index = folder() / "model.safetensors.index.json";
  write_bytes(index, R"({"weight_map": {"a": "part-1.safetensors"}})");
  EXPECT_THAT(missing(), HasSubstr("part-1.safetensors"));
  for (const char* name : {"../model.safetensors", "..", ".", "", "/etc/passwd", "a\\u0000b"}) {
    write_bytes(index, std::string(R"({"weight_map": {"a": ")") + name + R"("}})");
    EXPECT_THAT(damaged(), HasSubstr("tensor \"a\" is not the name of a file in this folder")) << name;
  }
  write_bytes(index, R"({"weight_map": 1})");
  EXPECT_THAT(damaged(), HasSubstr("weight_map"));
  fs::remove(folder() / "config.json");
  EXPECT_THAT(missing(), HasSubstr("config.json"));
}

TEST_F(LoadHuggingface, RefusesOtherWeights) {
  NamedTensors tensors = read_tensors(folder() / "model.safetensors");
  tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4}));  // old files have these
  write_tensors(folder() / "model.safetensors", tensors);
  load_huggingface(folder());
  tensors.emplace_back("model.layers.0.self_attn.q_proj.bias", at::ones({32}));
  write_tensors(folder() / "model.safetensors", tensors);
  EXPECT_THAT(message_of([&] { load_huggingface(folder()); }), HasSubstr("q_proj.bias"));
  tensors.pop_back();
  tensors.front().second = tensors.front().second.to(at::kLong);
  write_tensors(folder() / "model.safetensors", tensors);
  EXPECT_THAT(message_of([&] { load_huggingface(folder()); }),
              AllOf(HasSubstr(tensors.front().first), HasSubstr("not floating-point")));
}

}  // namespace
}  // namespace lighthouse
