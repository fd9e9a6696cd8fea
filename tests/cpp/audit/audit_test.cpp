// The audit of decoders: held selections are causal, free ones are not, and what each option of attention has to do
// with it.
#include <ATen/ops/flip.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>

#include <limits>

#include "audit/audit.h"
#include "cpp/audit/audit_support.h"
#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "lighthouse/geometry.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kSeqLen = 96;

/// Four coarsest entries of eight are expanded, in two tiles of 48 tokens.
AttentionConfig small_attention() {
  AttentionConfig attention;
  attention.num_levels = 3;
  attention.pooling_factor = 2;
  attention.topk = 4;
  attention.tile_topk = 2;
  return attention;
}

Decoder make_decoder(const AttentionConfig& attention, const ModelConfig& model = small_model(),
                     at::ScalarType dtype = at::kFloat) {
  return {model, attention, 5, {.dtype = dtype, .device = test_device()}};
}

struct AuditCase {
  std::string name;
  AttentionConfig attention = small_attention();
  bool qk_norm = false;
  std::vector<int64_t> cu_seqlens = {};
  at::ScalarType dtype = at::kFloat;
};

std::vector<AuditCase> cases() {
  std::vector<AuditCase> all{{"norm"}};
  const auto add = [&](const char* name) -> AuditCase& { return all.emplace_back(AuditCase{name}); };
  add("dilated").attention.scorer = Scorer::kDilated;
  add("gla").attention.scorer = Scorer::kGla;
  add("qk_norm").qk_norm = true;
  AuditCase& normed_gla = add("qk_norm_gla");
  normed_gla.qk_norm = true;
  normed_gla.attention.scorer = Scorer::kGla;
  add("uncovered").attention.cover_prefix = false;
  add("topk_per_layer").attention.topk_per_layer = {6, 3};
  add("one_dense_layer").attention.full_attention_layers = {0};
  add("packed").cu_seqlens = {0, 40, 41, 41, kSeqLen};
  add("bfloat16").dtype = at::kBFloat16;
  add("float64").dtype = at::kDouble;
  return all;
}

class AuditOfCase : public testing::TestWithParam<AuditCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, AuditOfCase, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(AuditOfCase, NothingMovesWithTheSelectionHeldAndSomethingWithoutThat) {
  const AuditCase& of = GetParam();
  ModelConfig model = small_model();
  model.family = of.qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
  const Decoder decoder = make_decoder(of.attention, model, of.dtype);
  const Audit result = audit(decoder, random_text(4, kSeqLen, of.cu_seqlens), {.changes_per_sequence = 6});
  for (const Moves* moves :
       {&result.held.replayed, &result.held.one_token, &result.held.all_later, &result.held.dense}) {
    EXPECT_GT(moves->num_outputs, 0);
    EXPECT_EQ(moves->num_moved, 0) << to_string(moves->worst);
    EXPECT_EQ(moves->max_delta, 0);
  }
  EXPECT_EQ(violation(result.held), std::nullopt);
  for (const FreeAudit& tile : result.free) {
    EXPECT_GT(tile.one_token.num_moved, 0) << tile.tile_topk;
    EXPECT_GT(tile.one_token.max_delta, 0) << tile.tile_topk;
    EXPECT_GT(tile.one_token.max_loss, 0) << tile.tile_topk;
    EXPECT_FALSE(tile.lookahead);
  }
}

TEST(DecoderAudit, LooksAheadInItsTileOnly) {
  AttentionConfig attention = small_attention();
  attention.topk = 8;
  const Decoder decoder = make_decoder(attention);
  const Audit result = audit(decoder, random_text(4, kSeqLen), {.changes_per_sequence = 12, .tile_topk = {8, 2, 4, 1}});
  ASSERT_EQ(result.free.size(), 4U);
  int64_t num_tiles = 8;
  for (const FreeAudit& tile : result.free) {
    EXPECT_EQ(tile.num_tiles, num_tiles);
    EXPECT_EQ(tile.tile_tokens, kSeqLen / num_tiles);
    EXPECT_LT(tile.one_token.max_distance, tile.tile_tokens);
    EXPECT_GT(tile.one_token.max_distance, tile.tile_tokens / 2);
    num_tiles /= 2;
  }
  EXPECT_LT(result.free.front().one_token.num_moved, result.free.back().one_token.num_moved);
}

TEST(DecoderAudit, DefaultTilesGoFromThirtyTwoToTheWholeSequence) {
  AttentionConfig attention = small_attention();
  attention.topk = 100;
  attention.tile_topk = 48;
  EXPECT_THAT(default_tile_topk(make_decoder(attention)), ElementsAre(32, 48, 64, 100));
  attention.tile_topk = 128;
  EXPECT_THAT(default_tile_topk(make_decoder(attention)), ElementsAre(32, 64, 100));
  attention.topk_per_layer = {8, 200};
  EXPECT_THAT(default_tile_topk(make_decoder(attention)), ElementsAre(32, 64, 128, 200));
  attention.full_attention_layers = {1};
  EXPECT_THAT(default_tile_topk(make_decoder(attention)), ElementsAre(8));
}

TEST(DecoderAudit, LossIsRepeatableAndOfTheSameChanges) {
  const Decoder decoder = make_decoder(small_attention());
  const std::vector<Sequence> text = random_text(4, kSeqLen);
  const AuditOptions options{.changes_per_sequence = 6, .loss = true};
  const FreeAudit first = audit(decoder, text, options).free.back();
  const FreeAudit again = audit(decoder, text, options).free.back();
  ASSERT_TRUE(first.lookahead && first.all_later);
  EXPECT_EQ(first.lookahead->difference.mean, again.lookahead->difference.mean);
  EXPECT_EQ(first.lookahead->difference.standard_error, again.lookahead->difference.standard_error);
  for (size_t band = 0; band < first.lookahead->by_distance.size(); ++band) {
    EXPECT_EQ(first.lookahead->by_distance[band].difference.mean, again.lookahead->by_distance[band].difference.mean);
  }
  EXPECT_NE(first.lookahead->difference.mean, 0);
  EXPECT_EQ(first.lookahead->difference.num_targets, first.all_later->num_outputs);
  EXPECT_EQ(first.lookahead->by_distance.front().difference.num_targets, first.all_later->num_changes);
  AttentionConfig one_tile = small_attention();
  one_tile.tile_topk = one_tile.topk;
  double loss = 0;
  for (const Sequence& sequence : text) {
    const Outputs outputs = free_selection(decoder.with_attention(one_tile))(sequence)(sequence);
    loss += outputs.losses.mean().item<double>() / static_cast<double>(text.size());
  }
  EXPECT_NEAR(first.lookahead->loss, loss, 1e-5);
}

// Such a tape is not what select makes; it may be refused, but must not pass for causal.
TEST(DecoderAudit, SeesThatRowsStandInTheWrongOrder) {
  const Decoder decoder = make_decoder(small_attention());
  const RunnerFor reversed = [&](const Sequence& original) -> Runner {
    const at::Tensor tokens = at::tensor(original.inputs).unsqueeze(0).to(decoder.device());
    SelectionTape tape;
    decoder.hidden_states(tokens, AttentionMode::kLighthouse, {}, &tape);
    for (at::Tensor& selection : tape) selection = at::flip(selection, {2});
    return [&decoder, tape](const Sequence& sequence) {
      const at::Tensor changed_tokens = at::tensor(sequence.inputs).unsqueeze(0).to(decoder.device());
      const at::Tensor hidden = decoder.hidden_states(changed_tokens, tape);
      return Outputs{hidden[0], hidden[0].select(1, 0)};
    };
  };
  try {
    const Moves moves = measure_moves(reversed, random_text(2, kSeqLen), Change::kOneToken, {});
    EXPECT_GT(moves.num_moved, 0);
    EXPECT_TRUE(violation({.replayed = {}, .one_token = moves, .all_later = {}, .dense = {}}));
  } catch (const c10::ValueError& refused) {
    EXPECT_THAT(refused.what(), HasSubstr("selection"));
  }
}

TEST(DecoderAudit, NamesWhatItCannotAudit) {
  const auto refusal = [](const AttentionConfig& attention, int64_t num_sequences, int64_t seq_len) -> std::string {
    try {
      audit(make_decoder(attention), random_text(num_sequences, seq_len), {});
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal(small_attention(), 2, kSeqLen), "accepted");
  EXPECT_THAT(refusal(small_attention(), 1, kSeqLen), HasSubstr("give at least 2"));
  EXPECT_THAT(refusal(small_attention(), 2, 16), HasSubstr("16 tokens gather"));
  AttentionConfig dense = small_attention();
  dense.full_attention_layers = {0, 1};
  EXPECT_THAT(refusal(dense, 2, kSeqLen), HasSubstr("name all 2 layers"));
}

TEST(SelectionTapes, HoldWhatTheLayersSelected) {
  AttentionConfig attention = small_attention();
  attention.full_attention_layers = {0};
  const Decoder decoder = make_decoder(attention);
  const at::Tensor tokens = random_tokens(2, kSeqLen, kVocab).to(decoder.device());
  const at::Tensor plain = decoder.hidden_states(tokens, AttentionMode::kLighthouse);
  SelectionTape tape;
  EXPECT_TRUE(plain.equal(decoder.hidden_states(tokens, AttentionMode::kLighthouse, {}, &tape)));
  ASSERT_EQ(tape.size(), 2U);
  EXPECT_FALSE(tape[0].defined());
  EXPECT_EQ(tape[1].sizes(), (std::vector<int64_t>{2, 2, gathered_length(kSeqLen, {3, 2, 4, 2, true})}));
  EXPECT_TRUE(plain.equal(decoder.hidden_states(tokens, tape)));
  const at::Tensor others = random_tokens(2, kSeqLen, kVocab, 2).to(decoder.device());
  EXPECT_FALSE(decoder.hidden_states(others, tape).equal(decoder.hidden_states(others, AttentionMode::kLighthouse)));

  EXPECT_THROW(decoder.hidden_states(tokens, {tape[0]}), InvalidArgument);
  EXPECT_THROW(decoder.hidden_states(tokens, {tape[1], tape[0]}), InvalidArgument);
  EXPECT_THROW(decoder.hidden_states(tokens.slice(1, 0, 80), tape), c10::ValueError);
  decoder.hidden_states(tokens, AttentionMode::kDense, {}, &tape);
  EXPECT_FALSE(tape[1].defined());
}

TEST(DecoderOutputs, LossesOfHiddenStatesAreThoseOfTheDecoder) {
  const Decoder decoder = make_decoder(small_attention(), small_model(), at::kDouble);
  const at::Tensor tokens = random_tokens(2, kSeqLen, kVocab).to(decoder.device());
  at::Tensor targets = random_tokens(2, kSeqLen, kVocab, 2).to(decoder.device());
  targets.slice(1, 10, 20).fill_(-100);
  const at::Tensor losses = decoder.head_losses(decoder.hidden_states(tokens, AttentionMode::kLighthouse), targets);
  EXPECT_EQ(losses.sizes(), targets.sizes());
  EXPECT_EQ(max_abs(losses.slice(1, 10, 20)), 0);
  const at::NoGradGuard no_grad;
  expect_equal_in_fp64(losses.sum() / (2 * (kSeqLen - 10)), decoder.loss(tokens, targets, AttentionMode::kLighthouse));
}

TEST(WithAttention, SharesTheWeights) {
  const Decoder decoder = make_decoder(small_attention());
  AttentionConfig other = small_attention();
  other.topk = 6;
  other.scorer = Scorer::kDilated;
  const Decoder changed = decoder.with_attention(other);
  const at::Tensor tokens = random_tokens(1, kSeqLen, kVocab).to(decoder.device());
  const auto hidden = [&](const Decoder& of) { return of.hidden_states(tokens, AttentionMode::kLighthouse); };
  EXPECT_TRUE(hidden(changed).equal(hidden(make_decoder(other))));
  EXPECT_FALSE(hidden(changed).equal(hidden(decoder)));
  const at::NoGradGuard no_grad;
  find(decoder.parameters(), "model.norm.weight").fill_(0);
  EXPECT_EQ(max_abs(hidden(changed)), 0);
  other.scorer = Scorer::kGla;
  EXPECT_THROW(decoder.with_attention(other), InvalidArgument);
  other.num_levels = 99;
  EXPECT_THROW(decoder.with_attention(other), InvalidArgument);
}

}  // namespace
}  // namespace lighthouse
