// The KV cache, sampling and generation.
#include "model/generate.h"

#include <ATen/ops/cat.h>
#include <gmock/gmock.h>

#include <cmath>

#include "cpp/io/temporary_folder.h"
#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "model/kv_cache.h"
#include "model/sample.h"

namespace lighthouse {
namespace {
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Decoder generator(at::ScalarType dtype, bool qk_norm = false) {
  ModelConfig model = small_model();
  model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
  Decoder decoder(model, {}, 5, {.dtype = dtype});
  spread_norms(decoder);
  return decoder;
}

TEST(KvCache, DecodingInPiecesEqualsOneForwardPass) {
  const at::NoGradGuard no_grad;
  for (const bool qk_norm : {false, true}) {
    const Decoder decoder = generator(at::kDouble, qk_norm);
    const at::Tensor tokens = random_tokens(2, 30, 31);
    const at::Tensor logits = decoder.forward(tokens, AttentionMode::kDense);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{30}, {1, 1, 1, 1}, {5, 3, 1, 1, 7, 2, 11}}) {
      KvCache cache;
      for (const int64_t piece : pieces) {
        const at::Tensor last = decoder.decode(tokens.narrow(1, cache.length(), piece), cache);
        expect_equal_in_fp64(last, logits.select(1, cache.length() - 1));
      }
    }
  }
}

TEST(KvCache, RefusesAnotherBatch) {
  const Decoder decoder = generator(at::kFloat);
  KvCache cache;
  decoder.decode(random_tokens(2, 3, 31), cache);
  EXPECT_THAT(message_of<InvalidArgument>([&] { decoder.decode(random_tokens(1, 1, 31), cache); }),
              HasSubstr("holds 2 sequences"));
  EXPECT_EQ(cache.length(), 3);
}

TEST(Generate, GreedyFollowsTheLargestLogit) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = generator(at::kFloat);
  at::Tensor tokens = random_tokens(1, 4, 31);
  const std::vector<int64_t> prompt(tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + 4);
  std::vector<int64_t> expected;
  for (int step = 0; step < 20; ++step) {
    const at::Tensor next = decoder.forward(tokens, AttentionMode::kDense).select(1, -1).argmax(-1, true);
    expected.push_back(next.item<int64_t>());
    tokens = at::cat({tokens, next}, 1);
  }
  EXPECT_THAT(generate(decoder, prompt, {.max_tokens = 20, .greedy = true}), ElementsAreArray(expected));
  EXPECT_THAT(generate(decoder, prompt, {.max_tokens = 20, .temperature = 0.5, .top_p = 1e-6}),
              ElementsAreArray(expected));
}

TEST(Generate, TheSeedDecidesTheSample) {
  const Decoder decoder = generator(at::kFloat);
  const std::vector<int64_t> prompt = {1, 2, 3};
  const auto sample = [&](uint64_t seed) { return generate(decoder, prompt, {.max_tokens = 30, .seed = seed}); };
  EXPECT_EQ(sample(1), sample(1));
  EXPECT_NE(sample(1), sample(2));
}

TEST(Generate, TheCallbackSeesEveryTokenAndCanStop) {
  const Decoder decoder = generator(at::kFloat);
  const std::vector<int64_t> prompt = {1};
  std::vector<int64_t> seen;
  const auto generated = generate(decoder, prompt, {.max_tokens = 10}, [&](int64_t token) {
    seen.push_back(token);
    return seen.size() < 4;
  });
  EXPECT_THAT(generated, SizeIs(4));
  EXPECT_EQ(seen, generated);
  EXPECT_THAT(generate(decoder, prompt, {.max_tokens = 0}), IsEmpty());
}

TEST(Generate, RefusesWrongArguments) {
  const Decoder decoder = generator(at::kFloat);
  const auto refused = [&](const std::vector<int64_t>& prompt, const GenerateOptions& options) {
    return message_of<InvalidArgument>([&] { generate(decoder, prompt, options); });
  };
  EXPECT_THAT(refused({}, {}), HasSubstr("prompt is empty"));
  EXPECT_THAT(refused({3, 31}, {}), HasSubstr("token 31 at position 1 of the prompt; the model's tokens are 0 to 30"));
  EXPECT_THAT(refused({-1}, {}), HasSubstr("token -1"));
  EXPECT_THAT(refused({1}, {.max_tokens = -1}), HasSubstr("max_tokens -1"));
  for (const double temperature : {0.0, -1.0, double{kNaN}, double{INFINITY}}) {
    EXPECT_THAT(refused({1}, {.temperature = temperature}), HasSubstr("temperature"));
  }
  for (const double top_p : {0.0, -0.1, 1.1, double{kNaN}}) {
    EXPECT_THAT(refused({1}, {.top_p = top_p}), HasSubstr("top_p"));
  }
  EXPECT_THAT(generate(decoder, std::vector<int64_t>{1}, {.max_tokens = 1, .greedy = true, .temperature = 0}),
              SizeIs(1));
}

TEST(Generate, RefusesLogitsThatAreNotFinite) {
  const Decoder decoder = generator(at::kFloat);
  {
    const at::NoGradGuard no_grad;
    find(decoder.parameters(), "lm_head.weight")[30].fill_(kNaN);
  }
  for (const bool greedy : {false, true}) {
    EXPECT_THAT(message_of<std::runtime_error>([&] { generate(decoder, std::vector<int64_t>{1}, {.greedy = greedy}); }),
                HasSubstr("not finite"));
  }
}

// Probabilities 1/8, 1/2, 1/4, 1/8: the nucleus holds tokens 1, 2, 0, 3 in this order.
TEST(Sample, CutsTheUnitIntervalByProbability) {
  const std::vector<float> logits = {0, std::log(4.0F), std::log(2.0F), 0};
  const auto sample = [&](double top_p, double uniform) { return sample_token(logits, 1.0, top_p, uniform); };
  EXPECT_EQ(sample(1, 0), 1);
  EXPECT_EQ(sample(1, 0.499), 1);
  EXPECT_EQ(sample(1, 0.501), 2);
  EXPECT_EQ(sample(1, 0.749), 2);
  EXPECT_EQ(sample(1, 0.751), 0);
  EXPECT_EQ(sample(1, 0.876), 3);
  EXPECT_EQ(sample(1, 1 - 0x1p-53), 3);
  EXPECT_EQ(sample(0.49, 1 - 0x1p-53), 1);
  EXPECT_EQ(sample(0.51, 0.66), 1);  // 1/2 of 3/4
  EXPECT_EQ(sample(0.51, 0.67), 2);
  EXPECT_EQ(sample(0.51, 1 - 0x1p-53), 2);
  EXPECT_EQ(sample(0.80, 1 - 0x1p-53), 0);
}

TEST(Sample, TemperatureSharpens) {
  const std::vector<float> logits = {0, std::log(2.0F)};  // probabilities 1/5 and 4/5 at temperature 1/2
  EXPECT_EQ(sample_token(logits, 0.5, 1, 0.799), 1);
  EXPECT_EQ(sample_token(logits, 0.5, 1, 0.801), 0);
  EXPECT_EQ(sample_token(logits, 1e-3, 1, 0.9999), 1);
  EXPECT_EQ(sample_token(logits, 1e6, 1, 0.501), 0);
}

TEST(Sample, TiesGoToTheLowerToken) {
  const std::vector<float> logits = {1, 3, 3, -2};
  EXPECT_EQ(likeliest_token(logits), 1);
  EXPECT_EQ(sample_token(logits, 1, 1e-9, 0.999), 1);
}

}  // namespace
}  // namespace lighthouse
