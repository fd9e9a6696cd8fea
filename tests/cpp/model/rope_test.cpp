// Frequencies and angles of scaled RoPE. tests/python/test_families.py compares them with transformers'.
#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>

#include <cmath>

#include "cpp/io/temporary_folder.h"
#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "model/kv_cache.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;

ModelConfig scaled(RopeScaling scaling) {
  return {.head_dim = 64, .rope_theta = 10000, .rope_scaling = scaling, .rope_factor = 4, .rope_original_len = 128};
}

at::Tensor frequencies(const ModelConfig& model, int64_t longest = 1) {
  return rope_frequencies(model, longest, at::kCPU).inverse;
}

TEST(RopeFrequencies, FastChannelsStayAndSlowOnesAreStretched) {
  const at::Tensor plain = frequencies(scaled(RopeScaling::kNone));
  EXPECT_TRUE(same_bits(frequencies(scaled(RopeScaling::kLinear)), plain / 4));
  for (const RopeScaling scaling : {RopeScaling::kYarn, RopeScaling::kLlama3}) {
    const at::Tensor inverse = frequencies(scaled(scaling));
    EXPECT_TRUE(same_bits(inverse[0], plain[0])) << scaling;
    EXPECT_LE(max_abs(inverse[-1] - plain[-1] / 4), 0x1p-23 * max_abs(plain[-1])) << scaling;
    EXPECT_LE(max_abs(plain / inverse), 4 * (1 + 0x1p-22)) << scaling;
    EXPECT_GE((plain / inverse).min().item<double>(), 1 - 0x1p-22) << scaling;
  }
}

TEST(RopeFrequencies, DynamicOnesDependOnTheLengthAloneAndBeyondTheOriginal) {
  const at::Tensor plain = frequencies(scaled(RopeScaling::kNone));
  EXPECT_TRUE(same_bits(frequencies(scaled(RopeScaling::kDynamic), 128), plain));
  const double stretch = std::pow(4.0 * 512 / 128 - 3, 64.0 / 62);
  const at::Tensor longer = frequencies(scaled(RopeScaling::kDynamic), 512);
  EXPECT_NEAR(longer[-1].item<double>(), std::pow(10000 * stretch, -62.0 / 64), 1e-6 * longer[-1].item<double>());
}

TEST(Rotation, YarnScalesCosinesAndSines) {
  ModelConfig model = scaled(RopeScaling::kYarn);
  const auto first_cosine = [&] {
    return make_rotation(0, 1, rope_frequencies(model, 1, at::kCPU)).cos[0][0][0].item<float>();
  };
  EXPECT_FLOAT_EQ(first_cosine(), static_cast<float>(0.1 * std::log(4.0) + 1));
  model.rope_attention_factor = 0.75;
  EXPECT_EQ(first_cosine(), 0.75F);
}

TEST(Decoder, DynamicRopeTakesTheLengthOfTheLongestDocument) {
  ModelConfig model = small_model();
  model.rope_scaling = RopeScaling::kDynamic;
  model.rope_factor = 2;
  model.rope_original_len = 12;
  const Decoder decoder(model, {}, 1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 30, 31);
  const auto logits = [&](const at::Tensor& of, const std::vector<int64_t>& documents) {
    return decoder.forward(of, AttentionMode::kDense, documents);
  };
  const at::Tensor packed = logits(tokens, {0, 20, 30});
  EXPECT_LE(max_abs(packed.slice(1, 0, 20) - logits(tokens.slice(1, 0, 20), {})), 1e-5);
  EXPECT_GT(max_abs(packed.slice(1, 20, 30) - logits(tokens.slice(1, 20, 30), {})), 1e-3);  // turned as in 20 tokens
}

TEST(Decoder, DynamicRopeGeneratesNoFurtherThanTheOriginalLength) {
  ModelConfig model = small_model();
  model.rope_scaling = RopeScaling::kDynamic;
  model.rope_original_len = 12;
  const Decoder decoder(model, {}, 1);
  KvCache cache;
  decoder.decode(random_tokens(1, 12, 31), cache);
  EXPECT_THAT(message_of<InvalidArgument>([&] { decoder.decode(random_tokens(1, 1, 31), cache); }),
              HasSubstr("13 tokens with a cache; model.rope_scaling = \"dynamic\""));
}

}  // namespace
}  // namespace lighthouse
