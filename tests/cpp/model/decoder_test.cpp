// The dense decoder: shapes, causality, packed documents, gradients, repeatability, errors.
#include "model/decoder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>

#include "config/schema.h"
#include "cpp/io/temporary_folder.h"
#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "nn/cross_entropy.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

Decoder small_decoder(at::ScalarType dtype, const ModelConfig& model = small_model()) {
  Decoder decoder(model, {}, 5, {.dtype = dtype});
  spread_norms(decoder);
  return decoder;
}

TEST(Decoder, LogitsHaveTheShapeOfTheTokensAndTheVocabulary) {
  const Decoder decoder = small_decoder(at::kFloat);
  for (const auto& [batch, seq_len] : {std::pair{1, 1}, {1, 7}, {3, 5}}) {
    const at::Tensor logits = decoder.forward(random_tokens(batch, seq_len, 31), kDense);
    EXPECT_EQ(logits.sizes(), at::IntArrayRef({batch, seq_len, 31}));
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
  }
}

TEST(Decoder, HasTheParametersThatTheConfigurationCounts) {
  for (const bool tied : {false, true}) {
    for (const ModelFamily family : {ModelFamily::kLlama, ModelFamily::kQwen2, ModelFamily::kQwen3}) {
      ModelConfig model = small_model();
      model.tie_embeddings = tied;
      model.family = family;
      const Decoder decoder(model, {}, 1);
      int64_t count = 0;
      for (const auto& [name, tensor] : decoder.parameters()) {
        count += tensor.numel();
        EXPECT_TRUE(tensor.requires_grad() && tensor.is_leaf() && tensor.scalar_type() == at::kFloat) << name;
      }
      EXPECT_EQ(count, num_parameters(model));
      EXPECT_TRUE(decoder.buffers().empty());
    }
  }
}

TEST(Decoder, InitialWeightsDependOnSeedAndNameOnly) {
  const Decoder decoder = Decoder(small_model(), {}, 5);
  ModelConfig other_model = small_model();
  other_model.family = ModelFamily::kQwen3;
  other_model.num_layers = 3;
  const Decoder larger(other_model, {}, 5);
  const Decoder other_seed(small_model(), {}, 6);
  for (const auto& [name, tensor] : decoder.parameters()) {
    EXPECT_TRUE(same_bits(tensor, find(larger.parameters(), name))) << name;
    EXPECT_EQ(same_bits(tensor, find(other_seed.parameters(), name)), tensor.dim() == 1) << name;
  }
}

TEST(Decoder, LoadsAndGradientsHaveTheSameBitsOnEveryRun) {
  const at::Tensor tokens = random_tokens(2, 50, 31);
  const at::Tensor targets = random_tokens(2, 50, 31, 2);
  const Decoder first = small_decoder(at::kFloat);
  const Decoder second = small_decoder(at::kFloat);
  const at::Tensor loss = first.loss(tokens, targets, kDense);
  const at::Tensor again = second.loss(tokens, targets, kDense);
  EXPECT_TRUE(same_bits(loss, again));
  loss.backward();
  again.backward();
  for (size_t i = 0; i < first.parameters().size(); ++i) {
    EXPECT_TRUE(same_bits(first.parameters()[i].second.grad(), second.parameters()[i].second.grad()));
  }
}

// Equal bits: a masked key adds an exact zero, and all shapes are the same.
TEST(Decoder, NoLogitMovesWhenALaterTokenDoes) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = small_decoder(at::kFloat);
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const at::Tensor logits = decoder.forward(tokens, kDense);
  for (const int64_t changed : {0, 1, 17, 39}) {
    at::Tensor other = tokens.clone();
    other.select(1, changed).add_(1).remainder_(31);
    const at::Tensor moved = decoder.forward(other, kDense);
    EXPECT_TRUE(same_bits(moved.narrow(1, 0, changed), logits.narrow(1, 0, changed))) << changed;
    for (int64_t later = changed; later < 40; ++later) {
      EXPECT_FALSE(same_bits(moved.select(1, later), logits.select(1, later))) << changed << " " << later;
    }
  }
}

TEST(Decoder, PackedDocumentsEqualSeparateOnes) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = small_decoder(at::kDouble);
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const std::vector<int64_t> cu_seqlens = {0, 1, 12, 12, 40};
  std::vector<at::Tensor> separate;
  for (const auto& [begin, end] : {std::pair{0, 1}, {1, 12}, {12, 40}}) {
    separate.push_back(decoder.forward(tokens.slice(1, begin, end), kDense));
  }
  const at::Tensor expected = at::cat(separate, 1);
  expect_equal_in_fp64(decoder.forward(tokens, kDense, cu_seqlens), expected);
  EXPECT_GT(max_abs(decoder.forward(tokens, kDense) - expected), 0.01);  // else the test could not fail
}

TEST(Decoder, OneDocumentIsAnUnpackedRow) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = small_decoder(at::kDouble);
  const at::Tensor tokens = random_tokens(1, 20, 31);
  const std::vector<int64_t> cu_seqlens = {0, 20};
  expect_equal_in_fp64(decoder.forward(tokens, kDense, cu_seqlens), decoder.forward(tokens, kDense));
}

// All but the parameters is fp64 in the one, fp32 in the other. An fp32 result passes through some ten roundings of
// 2^-24 in each layer, which attention and norms magnify; 2^-24 * 1000 of the largest logit leaves room for that.
TEST(Decoder, Fp32IsNearFp64) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(2, 40, 31);
  const at::Tensor exact = small_decoder(at::kDouble).forward(tokens, kDense);
  const at::Tensor logits = small_decoder(at::kFloat).forward(tokens, kDense);
  EXPECT_LE(max_abs(logits - exact), 0x1p-24 * 1000 * max_abs(exact));
}

// About ten roundings of relative size 2^-9 in each of two layers, added at worst.
TEST(Decoder, Bf16IsNearFp64AndKeepsFp32Outside) {
  const at::Tensor tokens = random_tokens(2, 40, 31);
  const Decoder decoder = small_decoder(at::kBFloat16);
  const at::Tensor exact = small_decoder(at::kDouble).forward(tokens, kDense);
  const at::Tensor logits = decoder.forward(tokens, kDense);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LE((logits - exact).norm().item<double>(), 20 * 0x1p-9 * exact.norm().item<double>());
  decoder.loss(tokens, tokens, kDense).backward();
  for (const auto& [name, tensor] : decoder.parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_EQ(tensor.grad().scalar_type(), at::kFloat) << name;
  }
}

double loss_value(const Decoder& decoder, const at::Tensor& tokens, const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  return decoder.loss(tokens, targets, kDense).item<double>();
}

/// Central difference of the loss along a fixed direction, less what `grad` says it is, per unit of step.
double difference_error(const Decoder& decoder, const at::Tensor& weight, const std::string& name, double step,
                        const at::Tensor& tokens, const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  const at::Tensor start = weight.detach().clone();
  at::Tensor direction = at::empty_like(start);
  for (int64_t i = 0; i < direction.numel(); ++i) {
    direction.mutable_data_ptr<float>()[i] =
        static_cast<float>(random_normal(random_stream(2, name), static_cast<uint64_t>(i)));
  }
  weight.copy_(start + direction * step);
  const at::Tensor up = weight.detach().clone();
  const double loss_up = loss_value(decoder, tokens, targets);
  weight.copy_(start - direction * step);
  const double loss_down = loss_value(decoder, tokens, targets);
  const at::Tensor moved = up.to(at::kDouble) - weight;  // exactly, with the weights' rounding
  weight.copy_(start);
  return (loss_up - loss_down - (weight.grad() * moved).sum().item<double>()) / (2 * step);
}

// The error of a central difference falls with the square of the step, so that of step h is a third of what it loses
// from step 2h to h: the bound leaves a factor of three. The gradient adds its own fp32 roundings.
class DecoderGradients : public testing::TestWithParam<ModelFamily> {};
INSTANTIATE_TEST_SUITE_P(Families, DecoderGradients,
                         testing::Values(ModelFamily::kQwen2, ModelFamily::kQwen3, ModelFamily::kSmolLm3),
                         [](const auto& family) { return std::string(word(family.param)); });

TEST_P(DecoderGradients, AreTheSlopesOfTheLoss) {
  ModelConfig model = small_model();
  model.family = GetParam();
  if (model.family == ModelFamily::kSmolLm3) {
    model.layers_without_rope = {1};
    model.rope_scaling = RopeScaling::kYarn;
    model.rope_factor = 4;
    model.rope_original_len = 4;
  }
  const Decoder decoder = small_decoder(at::kDouble, model);
  const at::Tensor tokens = random_tokens(2, 9, 31);
  at::Tensor targets = random_tokens(2, 9, 31, 2);
  targets.select(1, 3).fill_(kNoTarget);
  decoder.loss(tokens, targets, kDense).backward();
  for (const auto& [name, weight] : decoder.parameters()) {
    constexpr double kStep = 0x1p-9;
    const double coarse = difference_error(decoder, weight, name, 2 * kStep, tokens, targets);
    const double fine = difference_error(decoder, weight, name, kStep, tokens, targets);
    const double rounding = 0x1p-20 * weight.grad().norm().item<double>();
    EXPECT_LE(std::abs(fine), std::abs(coarse - fine) + rounding) << name;
    EXPECT_LE(std::abs(fine), 1e-2 * weight.grad().norm().item<double>()) << name;  // else the bound says nothing
  }
}

TEST(Decoder, TiedHeadIsTheEmbedding) {
  ModelConfig model = small_model();
  model.tie_embeddings = true;
  const Decoder decoder(model, {}, 5);
  for (const auto& [name, tensor] : decoder.parameters()) EXPECT_NE(name, "lm_head.weight");
  const at::Tensor tokens = at::full({1, 3}, 2, at::kLong);
  decoder.forward(tokens, kDense).select(-1, 4).sum().backward();
  const at::Tensor grad = find(decoder.parameters(), "model.embed_tokens.weight").grad();
  EXPECT_GT(max_abs(grad[2]), 0);  // as the input
  EXPECT_GT(max_abs(grad[4]), 0);  // as the output
  EXPECT_EQ(max_abs(grad[5]), 0);
}

TEST(Loss, IsTheMeanOfTheTargetsThatCount) {
  const Decoder decoder = small_decoder(at::kDouble);
  const at::Tensor tokens = random_tokens(2, 6, 31);
  at::Tensor targets = random_tokens(2, 6, 31, 2);
  targets[0][1] = kNoTarget;
  targets[1][5] = kNoTarget;
  const at::NoGradGuard no_grad;
  const at::Tensor logits = decoder.forward(tokens, kDense);
  double sum = 0;
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t n = 0; n < 6; ++n) {
      const auto target = targets[b][n].item<int64_t>();
      if (target != kNoTarget) sum += (logits[b][n].logsumexp(0) - logits[b][n][target]).item<double>();
    }
  }
  EXPECT_NEAR(decoder.loss(tokens, targets, kDense).item<double>(), sum / 10, 1e-13);
}

TEST(Loss, IsZeroWithoutTargets) {
  const Decoder decoder = small_decoder(at::kFloat);
  const at::Tensor tokens = random_tokens(1, 6, 31);
  const at::Tensor loss = decoder.loss(tokens, at::full({1, 6}, kNoTarget, at::kLong), kDense);
  EXPECT_EQ(loss.item<float>(), 0);
  loss.backward();
  for (const auto& [name, tensor] : decoder.parameters()) EXPECT_EQ(max_abs(tensor.grad()), 0) << name;
}

TEST(Decoder, TokenLossesAreTheTermsOfTheLoss) {
  const Decoder decoder = small_decoder(at::kDouble);
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const at::Tensor targets = random_tokens(1, 40, 31, 2);
  targets[0][7] = kNoTarget;
  targets[0][39] = kNoTarget;
  const std::vector<int64_t> packed = {0, 3, 40};
  for (const std::vector<int64_t>& cu_seqlens : {std::vector<int64_t>(), packed}) {
    const at::Tensor losses = decoder.token_losses(tokens, targets, kDense, cu_seqlens);
    ASSERT_EQ(losses.sizes(), tokens.sizes());
    EXPECT_FALSE(losses.requires_grad());
    const at::Tensor log_p = decoder.forward(tokens, kDense, cu_seqlens).to(at::kDouble).log_softmax(2);
    const at::Tensor exact = -log_p.gather(2, targets.clamp_min(0).unsqueeze(2)).squeeze(2);
    expect_equal_in_fp64(losses, exact * targets.ne(kNoTarget));
    EXPECT_EQ(losses[0][7].item<double>(), 0);
    const at::Tensor loss = decoder.loss(tokens, targets, kDense, cu_seqlens);
    expect_equal_in_fp64(losses.sum() / 38, loss);
  }
}

TEST(Decoder, TokenLossesAreFp32AndTheirMeanTheLossOfBothAttentions) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Decoder decoder = small_decoder(dtype);
    const at::Tensor tokens = random_tokens(3, 64, 31);
    const at::Tensor targets = random_tokens(3, 64, 31, 2);
    for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
      const at::Tensor losses = decoder.token_losses(tokens, targets, mode);
      EXPECT_EQ(losses.scalar_type(), at::kFloat);
      EXPECT_TRUE(same_bits(losses.sum(at::kDouble).div(3 * 64).to(at::kFloat), decoder.loss(tokens, targets, mode)));
    }
  }
  EXPECT_THROW(small_decoder(at::kFloat).token_losses(random_tokens(1, 4, 31), random_tokens(1, 5, 31), kDense),
               InvalidArgument);
}

TEST(Decoder, LastLogitsAreThoseOfForward) {
  const Decoder decoder = small_decoder(at::kDouble);
  const at::Tensor tokens = random_tokens(3, 20, 31);
  const at::Tensor logits = decoder.last_logits(tokens, kDense);
  EXPECT_FALSE(logits.requires_grad());
  expect_equal_in_fp64(logits, decoder.forward(tokens, kDense).select(1, -1));
}

TEST(DecoderErrors, SizesThatDoNotFitTogether) {
  const auto message = [](auto change) {
    ModelConfig model = small_model();
    AttentionConfig attention;
    change(model, attention);
    return message_of([&] { Decoder(model, attention, 1); });
  };
  EXPECT_THAT(message([](auto& model, auto&) { model.num_kv_heads = 3; }),
              AllOf(HasSubstr("num_heads = 4"), HasSubstr("num_kv_heads = 3")));
  EXPECT_THAT(message([](auto& model, auto&) { model.head_dim = 7; }), HasSubstr("head_dim = 7"));
  EXPECT_THAT(message([](auto& model, auto&) { model.vocab_size = 0; }), HasSubstr("vocab_size = 0"));
  EXPECT_THAT(message([](auto& model, auto&) { model.rope_theta = 0; }), HasSubstr("rope_theta"));
  EXPECT_THAT(message([](auto&, auto& attention) { attention.topk_per_layer = {1}; }), HasSubstr("topk_per_layer"));
  EXPECT_THAT(message([](auto&, auto& attention) { attention.full_attention_layers = {2}; }), HasSubstr("layer 2"));
  EXPECT_THAT(message([](auto&, auto& attention) { attention.pooling_factor = 3; }), HasSubstr("pooling_factor"));
  EXPECT_THAT(message_of([] { Decoder(small_model(), {}, 1, {.dtype = at::kHalf}); }), HasSubstr("Half"));
}

TEST(DecoderErrors, TensorsThatAreNoTokens) {
  const Decoder decoder = small_decoder(at::kFloat);
  const at::Tensor tokens = random_tokens(1, 6, 31);
  const auto forward = [&](const at::Tensor& wrong) { return message_of([&] { decoder.forward(wrong, kDense); }); };
  EXPECT_THAT(forward(tokens[0]), HasSubstr("int64 [B, N]"));
  EXPECT_THAT(forward(tokens.to(at::kInt)), HasSubstr("int64 [B, N]"));
  EXPECT_THAT(forward(tokens.narrow(1, 0, 0)), HasSubstr("int64 [B, N]"));
  EXPECT_THAT(forward(at::Tensor()), HasSubstr("int64 [B, N]"));
  EXPECT_THAT(message_of([&] { decoder.loss(tokens, tokens.narrow(1, 0, 5), kDense); }), HasSubstr("same shape"));
}

TEST(DecoderErrors, DocumentsThatAreNotTheRow) {
  const Decoder decoder = small_decoder(at::kFloat);
  const auto packed = [&](int64_t batch, const std::vector<int64_t>& cu_seqlens) {
    return message_of([&] { decoder.forward(random_tokens(batch, 6, 31), kDense, cu_seqlens); });
  };
  EXPECT_THAT(packed(2, {0, 6}), HasSubstr("batch of 1"));
  EXPECT_THAT(packed(1, {0, 5}), HasSubstr("from 0 to 5"));
  EXPECT_THAT(packed(1, {1, 6}), HasSubstr("from 1 to 6"));
  EXPECT_THAT(packed(1, {0, 4, 3, 6}), HasSubstr("not decrease"));
}

}  // namespace
}  // namespace lighthouse
