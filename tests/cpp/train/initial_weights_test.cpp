// Runs that start from a Hugging Face folder. tests/python/test_initial_weights.py starts from transformers' own.
#include "train/initial_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/train/train_support.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "model/export.h"
#include "model/tensor_file.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// Folder "model" has the weights of another seed than the run's.
class InitialWeights : public ::testing::Test {
 protected:
  InitialWeights() : config_(tiny_config(folder_)) {
    config_.training.initial_weights = model().string();
    export_model(config_.model);
  }
  fs::path model() const { return folder_ / "model"; }
  void export_model(const ModelConfig& sizes) const {
    export_huggingface(Decoder(sizes, {}, 77), model(), {.overwrite = true});
  }
  std::string refusal() const {
    return message_of<InvalidArgument>([&] { Trainer(config_, {}); });
  }

  TemporaryFolder folder_;
  RunConfig config_;
};

TEST_F(InitialWeights, AreThoseOfTheFolder) {
  config_.attention.scorer = Scorer::kGla;  // whose gate no such folder has: it stays that of the seed
  const Trainer trainer(config_, {});
  EXPECT_TRUE(same_tensors(trainer.decoder().parameters(), Decoder(config_.model, {}, 77).parameters()));
  const Decoder fresh(config_.model, config_.attention, static_cast<uint64_t>(config_.training.seed));
  EXPECT_TRUE(same_tensors(trainer.decoder().buffers(), fresh.buffers()));
  EXPECT_FALSE(trainer.decoder().buffers().empty());
}

TEST_F(InitialWeights, OfSixteenBitsBecomeFp32) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const Decoder exact(config_.model, {}, 77);
    NamedTensors rounded;
    for (const auto& [name, tensor] : exact.parameters()) {
      rounded.emplace_back(name, tensor.detach().to(dtype));
    }
    write_tensors(model() / "model.safetensors", rounded);
    const Trainer trainer(config_, {});
    for (auto& [name, tensor] : rounded) tensor = tensor.to(at::kFloat);
    EXPECT_TRUE(same_tensors(trainer.decoder().parameters(), rounded)) << dtype;
  }
}

TEST_F(InitialWeights, AreReadOnceOnly) {
  train(config_);
  fs::remove_all(model());
  EXPECT_EQ(train(config_).step, config_.training.steps);
  config_.training.initial_weights.clear();  // a resumed run need not say it again
  EXPECT_EQ(train(config_).step, config_.training.steps);
}

TEST_F(InitialWeights, AreReadAgainBeforeTheFirstCheckpoint) {
  struct Crash {};
  TrainOptions options;
  options.on_gradients = [](int64_t, const NamedTensors&) { throw Crash(); };
  EXPECT_THROW(train(config_, options), Crash);
  EXPECT_TRUE(same_tensors(Trainer(config_, {}).decoder().parameters(), Decoder(config_.model, {}, 77).parameters()));
}

TEST_F(InitialWeights, NameEveryKeyThatDiffers) {
  ModelConfig other = config_.model;
  other.num_kv_heads = 2;
  other.rope_theta = 10000;
  other.rms_norm_eps = 1e-6;
  other.tie_embeddings = true;
  other.init_std = 0.5;  // says nothing about weights that are there
  export_model(other);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("training.initial_weights"), HasSubstr(model().string()),
                               HasSubstr("model.num_kv_heads (2 there, 1 here)"),
                               HasSubstr("--model.num_kv_heads 2 --model.rope_theta 10000.0 --model.rms_norm_eps 1e-06 "
                                         "--model.tie_embeddings true"),
                               Not(HasSubstr("init_std"))));
  other = config_.model;
  other.family = ModelFamily::kQwen3;
  export_model(other);
  EXPECT_THAT(refusal(), HasSubstr("model.family (\"qwen3\" there, \"llama\" here)"));
}

TEST_F(InitialWeights, GoOnWithAnotherRopeWhereThatIsSaid) {
  const double theta = config_.model.rope_theta;
  config_.model.rope_theta = 8 * theta;
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("model.rope_theta ("),
                    HasSubstr("for another RoPE, as of a longer context, add --training.initial_rope changed; "
                              "or else set the folder's values: --model.rope_theta ")));
  config_.training.initial_rope = InitialRope::kChanged;
  {
    const Trainer trainer(config_, {});
    EXPECT_TRUE(same_tensors(trainer.decoder().parameters(), Decoder(config_.model, {}, 77).parameters()));
    EXPECT_EQ(trainer.decoder().config().rope_theta, 8 * theta);
  }
  config_.model.rope_scaling = RopeScaling::kLinear;
  config_.model.rope_factor = 4;
  EXPECT_EQ(Trainer(config_, {}).decoder().config().rope_factor, 4);
  config_.model.rms_norm_eps = 1e-3;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("differs in model.rms_norm_eps"), HasSubstr("here); set the folder's values"),
                               Not(HasSubstr("rope"))))
      << "all else is to be the folder's";
}

TEST_F(InitialWeights, RefuseARopeThatIsSaidToBeChangedAndIsNot) {
  config_.training.initial_rope = InitialRope::kChanged;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("training.initial_rope = \"changed\": model.rope_theta = "),
                               HasSubstr("are those of the model in"), HasSubstr("or leave it \"kept\"")));
}

TEST_F(InitialWeights, AChangedRopeStaysInARunThatGoesOn) {
  const double theta = config_.model.rope_theta;
  config_.model.rope_theta = 8 * theta;
  config_.training.initial_rope = InitialRope::kChanged;
  train(config_);
  config_.training.initial_weights.clear();
  config_.training.initial_rope = InitialRope::kKept;  // read already, as the weights
  EXPECT_EQ(Trainer(config_, {}).decoder().config().rope_theta, 8 * theta);
  config_.model.rope_theta = theta;
  EXPECT_THAT(refusal(), HasSubstr("the configuration differs in model.rope_theta"));
}

TEST_F(InitialWeights, NameTensorsThatDoNotFit) {
  const fs::path file = model() / "model.safetensors";
  const NamedTensors good = read_tensors(file);
  const auto with = [&](const std::function<void(NamedTensors&)>& change) {
    NamedTensors tensors = good;
    change(tensors);
    write_tensors(file, tensors);
    return refusal();
  };
  EXPECT_THAT(with([](NamedTensors& tensors) { tensors.front().second = tensors.front().second.t(); }),
              AllOf(HasSubstr(model().string()), HasSubstr("[256, 32]"), HasSubstr("[32, 256]")));
  EXPECT_THAT(with([](NamedTensors& tensors) { tensors.front().first = "model.layers.7.mlp.up_proj.weight"; }),
              AllOf(HasSubstr("model.layers.7.mlp.up_proj.weight"), HasSubstr("not one of the model's")));
  EXPECT_THAT(with([](NamedTensors& tensors) { tensors.pop_back(); }), HasSubstr("missing"));
  EXPECT_FALSE(fs::exists(fs::path(config_.logging.run_dir) / "config.toml")) << "nothing was started";
}

TEST_F(InitialWeights, NameWhatIsMissing) {
  fs::remove(model() / "model.safetensors");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("model.safetensors.index.json"), HasSubstr("safetensors")));
  fs::remove(model() / "config.json");
  EXPECT_THAT(refusal(), HasSubstr("has no config.json"));
  fs::remove_all(model());
  EXPECT_THAT(refusal(), AllOf(HasSubstr("training.initial_weights"), HasSubstr("is not a folder")));
  write_bytes(model(), "a file");
  EXPECT_THAT(refusal(), HasSubstr("is not a folder"));
}

}  // namespace
}  // namespace lighthouse
