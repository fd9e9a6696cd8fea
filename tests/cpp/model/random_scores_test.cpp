#include "model/random_scores.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/corrcoef.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cpp/model/model_support.h"

namespace lighthouse {
namespace {

TEST(RandomScores, AreUniformAndOfNoInputAndOfNoPosition) {
  constexpr int64_t kTokens = 20000;
  const at::Tensor q = at::randn({1, kTokens, 4, 8});
  const at::Tensor k = at::ones({1, kTokens, 2, 8});  // equal tokens: their position alone decides
  const auto [s_qk, s_kq] = random_scores(q, k);
  for (const at::Tensor& scores : {s_qk, s_kq}) {
    EXPECT_EQ(scores.sizes(), (at::IntArrayRef{1, 2, kTokens}));
    const at::Tensor one = scores[0][0];
    EXPECT_GE(one.min().item<float>(), 0.0F);
    EXPECT_LT(one.max().item<float>(), 1.0F);
    // Mean and variance of the uniform distribution, within 5 standard errors.
    EXPECT_NEAR(one.mean().item<double>(), 0.5, 5 * std::sqrt(1.0 / 12 / kTokens));
    EXPECT_NEAR(one.var().item<double>(), 1.0 / 12, 5 * std::sqrt(1.0 / 180 / kTokens));
    const at::Tensor position = at::arange(kTokens, at::kFloat);
    const at::Tensor norms = q[0].norm(2, -1).select(1, 0);
    const at::Tensor with = at::corrcoef(at::stack({one, position, norms, one.roll(1)}))[0];
    for (const int64_t other : {1, 2, 3}) EXPECT_LT(std::abs(with[other].item<double>()), 5 / std::sqrt(kTokens));
  }
}

TEST(RandomScores, DecideInTheModelAndAreComputedAgainTheSame) {
  const auto results = [](Scorer scorer, Recompute recompute, bool qk_norm) {
    ModelConfig model = small_model();
    model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
    AttentionConfig attention;
    attention.topk = 4;
    attention.scorer = scorer;
    const Decoder decoder(model, attention, 5, {.recompute = recompute});
    const at::Tensor loss =
        decoder.loss(random_tokens(1, 150, 31), random_tokens(1, 150, 31, 2), AttentionMode::kLighthouse);
    loss.backward();
    return std::pair(loss.detach(), find(decoder.parameters(), "model.embed_tokens.weight").grad());
  };
  for (const bool qk_norm : {false, true}) {
    const auto once = results(Scorer::kRandom, Recompute::kNone, qk_norm);
    const auto again = results(Scorer::kRandom, Recompute::kFull, qk_norm);
    EXPECT_TRUE(same_bits(once.first, again.first));
    EXPECT_TRUE(same_bits(once.second, again.second));
    EXPECT_FALSE(same_bits(once.first, results(Scorer::kNorm, Recompute::kNone, qk_norm).first));
  }
}

}  // namespace
}  // namespace lighthouse
