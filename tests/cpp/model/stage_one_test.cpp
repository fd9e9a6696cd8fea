// What stage 1 can have in place of Lighthouse attention (attention.method).
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "model/decoder.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr AttentionMode kStageOne = AttentionMode::kLighthouse;
AttentionConfig with_method(AttentionMethod method, int64_t span) {
  AttentionConfig attention;
  attention.method = method;
  attention.span = span;
  return attention;
}

Decoder decoder_with(const AttentionConfig& attention, at::ScalarType dtype = at::kDouble) {
  Decoder decoder(small_model(), attention, 5, {.dtype = dtype});
  spread_norms(decoder);
  return decoder;
}

TEST(ShortSequences, AreABatchOfMoreSequences) {
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kShort, 10));
  const at::Tensor tokens = random_tokens(2, 40, 31);
  const at::Tensor targets = random_tokens(2, 40, 31, 2);
  const auto cut = [](const at::Tensor& x) { return x.reshape({8, 10}); };
  const at::Tensor logits = decoder.forward(tokens, kStageOne);
  expect_equal_in_fp64(logits.reshape({8, 10, 31}), decoder.forward(cut(tokens), kDense));
  EXPECT_GT(max_abs(logits - decoder.forward(tokens, kDense)), 0.01);  // else the test could not fail

  decoder.loss(tokens, targets, kStageOne).backward();
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : decoder.parameters()) {
    gradients.push_back(parameter.grad().to(at::kDouble));
    parameter.mutable_grad().reset();
  }
  decoder.loss(cut(tokens), cut(targets), kDense).backward();
  for (size_t i = 0; i < gradients.size(); ++i) {
    const auto& [name, parameter] = decoder.parameters()[i];
    EXPECT_LE(max_abs(gradients[i] - parameter.grad()), 1e-5 * max_abs(gradients[i])) << name;  // they are fp32
  }
}

TEST(ShortSequences, SeeNothingOfThoseBefore) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kShort, 10), at::kFloat);
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const at::Tensor logits = decoder.forward(tokens, kStageOne);
  at::Tensor other = tokens.clone();
  other.select(1, 13).add_(1).remainder_(31);
  const at::Tensor moved = decoder.forward(other, kStageOne);
  for (const int64_t token : {0, 9, 10, 12, 20, 21, 39}) {
    EXPECT_TRUE(same_bits(moved.select(1, token), logits.select(1, token))) << token;
  }
  for (const int64_t token : {13, 14, 19}) {
    EXPECT_FALSE(same_bits(moved.select(1, token), logits.select(1, token))) << token;
  }
}

TEST(ShortSequences, AreCutInsideDocumentsToo) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kShort, 20));
  const at::Tensor tokens = random_tokens(1, 60, 31);
  const std::vector<int64_t> documents = {0, 7, 7, 20, 55, 60};
  const std::vector<int64_t> both = {0, 7, 20, 40, 55, 60};
  expect_equal_in_fp64(decoder.forward(tokens, kStageOne, documents), decoder.forward(tokens, kDense, both));
}

TEST(ShortSequences, LeaveDenseAttentionAsItIs) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kShort, 10), at::kFloat);
  EXPECT_TRUE(same_bits(decoder.forward(tokens, kDense), decoder_with({}, at::kFloat).forward(tokens, kDense)));
}

TEST(ShortSequences, DivideTheRow) {
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kShort, 10));
  try {
    decoder.forward(random_tokens(1, 45, 31), kStageOne);
    FAIL() << "accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("attention.span = 10"), HasSubstr("45")));
  }
}

// Through two layers: what a token sees of the first layer has seen as far back again.
TEST(Window, ReachesAsFarBackAsItSaysInEveryLayer) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kWindow, 5), at::kFloat);
  const at::Tensor tokens = random_tokens(1, 40, 31);
  at::Tensor other = tokens.clone();
  other.select(1, 13).add_(1).remainder_(31);
  const at::Tensor difference = decoder.forward(other, kStageOne) - decoder.forward(tokens, kStageOne);
  for (int64_t token = 0; token < 40; ++token) {
    EXPECT_EQ(max_abs(difference.select(1, token)) > 0, token >= 13 && token < 13 + 2 * 4 + 1) << token;
  }
}

TEST(Window, AsLongAsTheSequenceIsDenseAttention) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(2, 40, 31);
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kWindow, 40));
  expect_equal_in_fp64(decoder.forward(tokens, kStageOne), decoder.forward(tokens, kDense));
}

TEST(Window, LeavesDenseLayersDense) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 40, 31);
  AttentionConfig attention = with_method(AttentionMethod::kWindow, 5);
  attention.full_attention_layers = {0, 1};
  const Decoder decoder = decoder_with(attention);
  expect_equal_in_fp64(decoder.forward(tokens, kStageOne), decoder.forward(tokens, kDense));
}

TEST(Window, EndsAtTheBeginOfADocument) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const Decoder decoder = decoder_with(with_method(AttentionMethod::kWindow, 7));
  const std::vector<int64_t> documents = {0, 3, 3, 20, 40};
  std::vector<at::Tensor> separate;
  for (const auto& [begin, end] : {std::pair{0, 3}, {3, 20}, {20, 40}}) {
    separate.push_back(decoder.forward(tokens.slice(1, begin, end), kStageOne));
  }
  expect_equal_in_fp64(decoder.forward(tokens, kStageOne, documents), at::cat(separate, 1));
}

AttentionConfig with_windows(std::vector<int64_t> layers, int64_t span) {
  AttentionConfig attention = with_method(AttentionMethod::kLighthouse, span);
  attention.topk = 2;
  attention.tile_topk = 2;
  attention.num_levels = 2;
  attention.window_layers = std::move(layers);
  return attention;
}

TEST(WindowLayers, StandBetweenLighthouseLayers) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 40, 31);
  AttentionConfig attention = with_windows({}, 0);
  attention.full_attention_layers = {1};
  const at::Tensor dense_second = decoder_with(attention).forward(tokens, kStageOne);
  // A window of the whole row is dense attention; a shorter one is not, and Lighthouse attention in its place neither.
  const auto second = [&](int64_t span) { return decoder_with(with_windows({1}, span)).forward(tokens, kStageOne); };
  expect_equal_in_fp64(second(40), dense_second);
  EXPECT_GT(max_abs(second(5) - dense_second), 1e-3);
  EXPECT_GT(max_abs(second(5) - decoder_with(with_windows({}, 0)).forward(tokens, kStageOne)), 1e-3);
}

TEST(WindowLayers, InEveryLayerAreTheMethodWindow) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(1, 40, 31);
  const Decoder decoder = decoder_with(with_windows({0, 1}, 5));
  EXPECT_TRUE(same_bits(decoder.forward(tokens, kStageOne),
                        decoder_with(with_method(AttentionMethod::kWindow, 5)).forward(tokens, kStageOne)));
  expect_equal_in_fp64(decoder.forward(tokens, kDense),
                       decoder_with(with_method(AttentionMethod::kWindow, 5)).forward(tokens, kDense));
}

TEST(StageOne, WithoutLighthouseAloneRecomputesTheSameBits) {
  for (const AttentionConfig& attention :
       {with_method(AttentionMethod::kShort, 10), with_method(AttentionMethod::kWindow, 10), with_windows({0}, 10)}) {
    std::vector<std::vector<at::Tensor>> gradients;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      const Decoder decoder(small_model(), attention, 5, {.recompute = recompute});
      decoder.loss(random_tokens(1, 40, 31), random_tokens(1, 40, 31, 2), kStageOne).backward();
      gradients.emplace_back();
      for (const auto& [name, parameter] : decoder.parameters()) gradients.back().push_back(parameter.grad());
    }
    for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(same_bits(gradients[0][i], gradients[1][i])) << i;
  }
}

}  // namespace
}  // namespace lighthouse
