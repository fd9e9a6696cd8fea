// The decoder in stage 1: which layers run Lighthouse attention, with which k, scores and gate.
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/rms_norm.h>
#include <gmock/gmock.h>

#include "cpp/model/model_support.h"
#include "lighthouse/ops.h"
#include "model/decoder.h"
#include "model/rope.h"

namespace lighthouse {
namespace {

constexpr int64_t kSeqLen = 96;

/// Two tiles, three levels, about a third of the tokens kept.
AttentionConfig small_attention() {
  AttentionConfig attention;
  attention.num_levels = 3;
  attention.pooling_factor = 2;
  attention.topk = 4;
  attention.tile_topk = 2;
  return attention;
}

at::Tensor logits(const ModelConfig& model, const AttentionConfig& attention, AttentionMode mode,
                  at::ScalarType dtype = at::kFloat) {
  const at::NoGradGuard no_grad;
  const Decoder decoder(model, attention, 5, {.dtype = dtype});
  spread_norms(decoder);
  return decoder.forward(random_tokens(1, kSeqLen, model.vocab_size), mode);
}

at::Tensor logits(const AttentionConfig& attention, AttentionMode mode = kLighthouse) {
  return logits(small_model(), attention, mode);
}

TEST(LighthouseDecoder, OneLevelIsDense) {
  AttentionConfig attention = small_attention();
  attention.num_levels = 1;
  expect_equal_in_fp64(logits(small_model(), attention, kLighthouse, at::kDouble),
                       logits(small_model(), attention, kDense, at::kDouble));
}

TEST(LighthouseDecoder, ListedLayersAreDense) {
  AttentionConfig attention = small_attention();
  const at::Tensor none = logits(attention);
  const at::Tensor dense = logits(attention, kDense);
  EXPECT_FALSE(same_bits(none, dense));
  attention.full_attention_layers = {0, 1};
  EXPECT_TRUE(same_bits(logits(attention), dense));
  attention.full_attention_layers = {0};
  const at::Tensor first = logits(attention);
  attention.full_attention_layers = {1};
  const at::Tensor second = logits(attention);
  for (const at::Tensor& one : {first, second}) {
    EXPECT_FALSE(same_bits(one, none));
    EXPECT_FALSE(same_bits(one, dense));
  }
  EXPECT_FALSE(same_bits(first, second));
}

TEST(LighthouseDecoder, LayersThatWouldNotGetShorterAreDense) {
  AttentionConfig attention = small_attention();
  const at::Tensor selected = logits(attention);
  attention.topk_per_layer = {4, 100};
  const at::Tensor second_full = logits(attention);
  attention.full_attention_layers = {1};
  attention.topk_per_layer = {};
  EXPECT_TRUE(same_bits(second_full, logits(attention)));
  EXPECT_FALSE(same_bits(second_full, selected));

  attention.full_attention_layers = {};
  attention.topk = 100;
  for (const Scorer scorer : {Scorer::kNorm, Scorer::kDilated}) {
    attention.scorer = scorer;
    EXPECT_TRUE(same_bits(logits(attention), logits(attention, kDense)));
  }
}

// A tape of a pass holds no selection of such a layer, and a pass may be held to it.
TEST(LighthouseDecoder, TapesKnowLayersThatWouldNotGetShorter) {
  AttentionConfig attention = small_attention();
  attention.topk_per_layer = {4, 100};
  const Decoder decoder(small_model(), attention, 5);
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  SelectionTape tape;
  const at::Tensor hidden = decoder.hidden_states(tokens, kLighthouse, {}, &tape);
  EXPECT_TRUE(tape[0].defined());
  EXPECT_FALSE(tape[1].defined());
  EXPECT_TRUE(same_bits(decoder.hidden_states(tokens, tape), hidden));
}

TEST(LighthouseDecoder, EveryLayerHasItsOwnTopk) {
  AttentionConfig attention = small_attention();
  attention.full_attention_layers = {0};
  attention.topk = 8;
  const at::Tensor eight = logits(attention);
  attention.topk = 4;
  EXPECT_FALSE(same_bits(logits(attention), eight));
  attention.topk_per_layer = {4, 8};
  EXPECT_TRUE(same_bits(logits(attention), eight));
  attention.topk_per_layer = {8, 4};
  EXPECT_FALSE(same_bits(logits(attention), eight));
}

TEST(LighthouseDecoder, EveryOptionReachesTheAttention) {
  const at::Tensor base = logits(small_attention());
  const auto differs = [&](auto change) {
    AttentionConfig attention = small_attention();
    change(attention);
    return !same_bits(logits(attention), base);
  };
  EXPECT_FALSE(differs([](AttentionConfig&) {}));
  EXPECT_TRUE(differs([](AttentionConfig& attention) { attention.num_levels = 2; }));
  EXPECT_TRUE(differs([](AttentionConfig& attention) { attention.pooling_factor = 4; }));
  EXPECT_TRUE(differs([](AttentionConfig& attention) { attention.tile_topk = 4; }));
  EXPECT_TRUE(differs([](AttentionConfig& attention) { attention.cover_prefix = false; }));
  EXPECT_TRUE(differs([](AttentionConfig& attention) { attention.scorer = Scorer::kDilated; }));
  AttentionConfig dilated = small_attention();
  dilated.scorer = Scorer::kDilated;
  const at::Tensor four = logits(dilated);
  dilated.dilation = 2;
  EXPECT_FALSE(same_bits(logits(dilated), four));
}

// As a function of the step alone: nothing of stage 1 stays in the model.
TEST(LighthouseDecoder, TheStageSwitchIsTheModeOnly) {
  const Decoder decoder(small_model(), small_attention(), 5);
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  const at::Tensor targets = random_tokens(1, kSeqLen, 31, 2);
  const at::Tensor before = decoder.loss(tokens, targets, kDense);
  decoder.loss(tokens, targets, kLighthouse).backward();
  for (const auto& [name, tensor] : decoder.parameters()) EXPECT_TRUE(tensor.grad().defined()) << name;
  EXPECT_TRUE(same_bits(decoder.loss(tokens, targets, kDense), before));
}

TEST(LighthouseDecoder, SameBitsOnEveryRun) {
  const at::Tensor tokens = random_tokens(2, kSeqLen, 31);
  const Decoder first(small_model(), small_attention(), 5);
  const Decoder second(small_model(), small_attention(), 5);
  for (const Decoder* decoder : {&first, &second}) decoder->loss(tokens, tokens, kLighthouse).backward();
  for (size_t i = 0; i < first.parameters().size(); ++i) {
    EXPECT_TRUE(same_bits(first.parameters()[i].second.grad(), second.parameters()[i].second.grad()));
  }
}

// k = 2 with tiles of 2 gives one tile, so each document is selected as though it were alone.
TEST(LighthouseDecoder, PackedDocumentsEqualSeparateOnes) {
  const at::NoGradGuard no_grad;
  AttentionConfig attention = small_attention();
  attention.topk = 2;
  const Decoder decoder(small_model(), attention, 5, {.dtype = at::kDouble});
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  const std::vector<int64_t> cu_seqlens = {0, 40, 41, kSeqLen};
  const at::Tensor packed = decoder.forward(tokens, kLighthouse, cu_seqlens);
  for (size_t document = 0; document + 1 < cu_seqlens.size(); ++document) {
    const int64_t begin = cu_seqlens[document];
    const int64_t end = cu_seqlens[document + 1];
    expect_equal_in_fp64(packed.slice(1, begin, end), decoder.forward(tokens.slice(1, begin, end), kLighthouse));
  }
}

/// What a decoder of one layer puts into its attention, worked out apart from it: fp32.
struct AttentionInputs {
  at::Tensor x;                ///< normed input [1, N, dim]
  at::Tensor q_raw, k_raw, v;  ///< straight from the projections
  at::Tensor q, k;             ///< normed and turned
};

AttentionInputs attention_inputs(const Decoder& decoder, const at::Tensor& tokens) {
  const ModelConfig& model = decoder.config();
  const auto weight = [&](const std::string& name) { return find(decoder.parameters(), name + ".weight"); };
  const auto heads = [&](const at::Tensor& x, const std::string& name) {
    return at::linear(x, weight("model.layers.0.self_attn." + name)).unflatten(-1, {-1, model.head_dim});
  };
  AttentionInputs in;
  in.x = at::rms_norm(at::embedding(weight("model.embed_tokens"), tokens), {model.dim},
                      weight("model.layers.0.input_layernorm"), model.rms_norm_eps);
  in.q_raw = heads(in.x, "q_proj");
  in.k_raw = heads(in.x, "k_proj");
  in.v = heads(in.x, "v_proj");
  const auto ready = [&](const at::Tensor& raw, const std::string& name) {
    const at::Tensor normed =
        model.qk_norm()
            ? at::rms_norm(raw, {model.head_dim}, weight("model.layers.0.self_attn." + name), model.rms_norm_eps)
            : raw;
    return rotate(normed, make_rotation(0, tokens.size(1), rope_frequencies(model, tokens.size(1), at::kCPU)),
                  at::kFloat);
  };
  in.q = ready(in.q_raw, "q_norm");
  in.k = ready(in.k_raw, "k_norm");
  return in;
}

/// The model's logits are those of its attention's output: a model whose feed-forward adds nothing shows it.
Decoder attention_only(bool qk_norm, const AttentionConfig& attention) {
  ModelConfig model = small_model();
  model.num_layers = 1;
  model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
  Decoder decoder(model, attention, 5);
  spread_norms(decoder);
  const at::NoGradGuard no_grad;
  find(decoder.parameters(), "model.layers.0.mlp.down_proj.weight").zero_();
  return decoder;
}

at::Tensor logits_from(const Decoder& decoder, const at::Tensor& tokens, const at::Tensor& attention_output) {
  const auto weight = [&](const std::string& name) { return find(decoder.parameters(), name + ".weight"); };
  const at::Tensor x = at::embedding(weight("model.embed_tokens"), tokens) +
                       at::linear(attention_output.flatten(2), weight("model.layers.0.self_attn.o_proj"));
  return at::linear(at::rms_norm(x, {decoder.config().dim}, weight("model.norm"), decoder.config().rms_norm_eps),
                    weight("lm_head"));
}

AttentionOptions options_of(const AttentionConfig& attention) {
  AttentionOptions options;
  options.selection_config = {attention.num_levels, attention.pooling_factor, attention.topk, attention.tile_topk,
                              attention.cover_prefix};
  options.score_config = {attention.scorer, attention.dilation};
  return options;
}

// Equal bits: the same operators on the same values.
TEST(LighthouseDecoder, QkNormIsScoredByTheHeadsBeforeIt) {
  const at::NoGradGuard no_grad;
  const AttentionConfig attention = small_attention();
  const Decoder decoder = attention_only(true, attention);
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  const AttentionInputs in = attention_inputs(decoder, tokens);
  AttentionOptions options = options_of(attention);
  const at::Tensor scored_after = lighthouse_attention(in.q, in.k, in.v, options);
  options.scores = token_scores(in.q_raw, in.k_raw, in.v);
  const at::Tensor scored_before = lighthouse_attention(in.q, in.k, in.v, options);
  const at::Tensor actual = decoder.forward(tokens, kLighthouse);
  EXPECT_TRUE(same_bits(actual, logits_from(decoder, tokens, scored_before)));
  EXPECT_FALSE(same_bits(actual, logits_from(decoder, tokens, scored_after)));
}

TEST(LighthouseDecoder, GlaGateComesFromTheInputOfTheBlock) {
  const at::NoGradGuard no_grad;
  AttentionConfig attention = small_attention();
  attention.scorer = Scorer::kGla;
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  for (const bool qk_norm : {false, true}) {
    const Decoder decoder = attention_only(qk_norm, attention);
    find(decoder.buffers(), "model.layers.0.self_attn.gate.weight").mul_(50);  // gates that tell tokens apart
    const AttentionInputs in = attention_inputs(decoder, tokens);
    AttentionOptions options = options_of(attention);
    const at::Tensor gate =
        at::log_sigmoid(at::linear(in.x, find(decoder.buffers(), "model.layers.0.self_attn.gate.weight"))) / 16;
    if (qk_norm) {
      options.scores = token_scores(in.q_raw, in.k_raw, in.v, options.score_config, gate);
    } else {
      options.gate = gate;
    }
    const at::Tensor expected = logits_from(decoder, tokens, lighthouse_attention(in.q, in.k, in.v, options));
    EXPECT_TRUE(same_bits(decoder.forward(tokens, kLighthouse), expected)) << qk_norm;
  }
}

TEST(LighthouseDecoder, GlaGatesAreFixedBuffers) {
  AttentionConfig attention = small_attention();
  attention.scorer = Scorer::kGla;
  const Decoder decoder(small_model(), attention, 5);
  ASSERT_EQ(decoder.buffers().size(), 2U);
  for (const auto& [name, gate] : decoder.buffers()) {
    EXPECT_THAT(name, ::testing::MatchesRegex("model\\.layers\\.[01]\\.self_attn\\.gate\\.weight"));
    EXPECT_EQ(gate.sizes(), at::IntArrayRef({4, 24}));
    EXPECT_FALSE(gate.requires_grad());
    EXPECT_LE(max_abs(gate), 6 * 0.02);
    EXPECT_GT(max_abs(gate), 0.02);
  }
  const at::Tensor tokens = random_tokens(1, kSeqLen, 31);
  decoder.loss(tokens, tokens, kLighthouse).backward();
  for (const auto& [name, gate] : decoder.buffers()) EXPECT_FALSE(gate.grad().defined()) << name;
}

}  // namespace
}  // namespace lighthouse
