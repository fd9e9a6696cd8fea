// What is computed again in backward changes no bit; the loss by chunks is the loss.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "cpp/model/model_support.h"
#include "model/decoder.h"
#include "model/feed_forward.h"
#include "model/head_loss.h"
#include "model/layer.h"
#include "plan/feed_forward_tile.h"
#include "support/live_bytes.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;

AttentionConfig short_lighthouse() {
  AttentionConfig attention;
  attention.topk = 4;
  attention.tile_topk = 4;
  attention.full_attention_layers = {1};
  return attention;
}

/// Loss and gradients of all parameters.
std::vector<at::Tensor> results(const ModelConfig& model, const Execution& execution,
                                const std::vector<int64_t>& cu_seqlens = {},
                                const AttentionConfig& attention = short_lighthouse()) {
  const Decoder decoder(model, attention, 5, execution);
  spread_norms(decoder);
  const at::Tensor tokens = random_tokens(1, 150, 31);
  const at::Tensor loss = decoder.loss(tokens, random_tokens(1, 150, 31, 2), AttentionMode::kLighthouse, cu_seqlens);
  loss.backward();
  std::vector<at::Tensor> tensors{loss};
  for (const auto& [name, parameter] : decoder.parameters()) tensors.push_back(parameter.grad());
  return tensors;
}

void expect_same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(same_bits(a[i], b[i])) << i;
}

TEST(Recompute, ChangesNoBit) {
  for (const bool qk_norm : {false, true}) {
    ModelConfig model = small_model();
    model.family = qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      if (qk_norm && dtype == at::kBFloat16) continue;  // slow on CPUs without bf16, and nothing new
      const auto kept = results(model, {.dtype = dtype});
      expect_same_bits(kept, results(model, {.dtype = dtype, .recompute = Recompute::kSelective}));
      expect_same_bits(kept, results(model, {.dtype = dtype, .recompute = Recompute::kFull}));
      expect_same_bits(kept, results(model, {.dtype = dtype, .recompute = Recompute::kFull, .offload_layers = 2}));
    }
  }
}

// The offsets are gone by the time of backward: passes own what they need.
TEST(Recompute, OwnsTheOffsetsOfPackedDocuments) {
  const std::vector<int64_t> cu_seqlens{0, 70, 71, 150};
  expect_same_bits(results(small_model(), {}, cu_seqlens),
                   results(small_model(), {.recompute = Recompute::kFull}, cu_seqlens));
}

/// Two Lighthouse layers of different topk with a dense one and a window between them.
AttentionConfig all_kinds(Scorer scorer, bool cover_prefix) {
  AttentionConfig attention = short_lighthouse();
  attention.scorer = scorer;
  attention.cover_prefix = cover_prefix;
  attention.topk_per_layer = {4, 4, 4, 8};
  attention.window_layers = {2};
  attention.span = 20;
  return attention;
}
constexpr int kNumSelecting = 2;

ModelConfig four_layers(bool qk_norm) {
  ModelConfig model = small_model();
  model.num_layers = 4;
  if (qk_norm) model.family = ModelFamily::kQwen3;
  return model;
}

constexpr Scorer kScorers[] = {Scorer::kNorm, Scorer::kDilated, Scorer::kGla, Scorer::kRandom};

TEST(Recompute, OfEveryScorerChangesNoBit) {
  for (const Scorer scorer : kScorers) {
    for (const bool qk_norm : {false, true}) {
      for (const auto& cu_seqlens : {std::vector<int64_t>(), {0, 70, 71, 150}}) {
        const AttentionConfig attention = all_kinds(scorer, /*cover_prefix=*/!qk_norm);
        const auto of = [&](const Execution& execution) {
          return results(four_layers(qk_norm), execution, cu_seqlens, attention);
        };
        SCOPED_TRACE(std::string(word(scorer)) + (qk_norm ? ", QK-norm" : ""));
        const auto kept = of({});
        expect_same_bits(kept, of({.recompute = Recompute::kFull}));
        expect_same_bits(kept, of({.recompute = Recompute::kFull, .offload_layers = 4}));
      }
    }
  }
}

TEST(Recompute, WithAnyNumberOfLayersOffloadedChangesNoBit) {
  const AttentionConfig attention = all_kinds(Scorer::kDilated, /*cover_prefix=*/true);
  const auto kept = results(four_layers(false), {}, {}, attention);
  for (int64_t count = 0; count <= 5; ++count) {
    expect_same_bits(
        kept, results(four_layers(false), {.recompute = Recompute::kFull, .offload_layers = count}, {}, attention));
  }
}

TEST(Recompute, OfSeveralLayersFromOneInputChangesNoBit) {
  for (const Scorer scorer : kScorers) {
    const AttentionConfig attention = all_kinds(scorer, /*cover_prefix=*/true);
    const auto kept = results(four_layers(false), {}, {}, attention);
    for (const auto& [together, offload_layers] :
         {std::pair<int64_t, int64_t>{2, 0}, {2, 1}, {2, 4}, {3, 0}, {3, 3}, {4, 0}, {9, 4}}) {
      SCOPED_TRACE(std::string(word(scorer)) + ", " + std::to_string(together));
      expect_same_bits(
          kept, results(four_layers(false),
                        {.recompute = Recompute::kFull, .offload_layers = offload_layers, .recompute_layers = together},
                        {}, attention));
    }
  }
}

/// How often functions were called while it lives, by the names that profilers see. One at a time.
class Calls {
 public:
  Calls() : handle_(at::addGlobalCallback(at::RecordFunctionCallback(&seen).scopes({at::RecordScope::FUNCTION}))) {
    counts.clear();
  }
  ~Calls() { at::removeCallback(handle_); }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  int of(const std::string& name) const {
    const std::lock_guard lock(mutex);
    return counts[name];
  }

 private:
  static std::unique_ptr<at::ObserverContext> seen(const at::RecordFunction& function) {
    const std::lock_guard lock(mutex);
    ++counts[function.name()];
    return nullptr;
  }
  static inline std::mutex mutex;
  static inline std::map<std::string, int> counts;
  at::CallbackHandle handle_;
};

// Scores of q and k are made of norms, of the tokens or of what attends to them, or else by gla's pass.
TEST(Recompute, ScoresAndSelectsOnceALayer) {
  const auto expect_once = [](Scorer scorer, bool qk_norm) {
    SCOPED_TRACE(std::string(word(scorer)) + (qk_norm ? ", QK-norm" : ""));
    std::map<std::string, int> once;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      const Calls calls;
      results(four_layers(qk_norm), {.recompute = recompute}, {}, all_kinds(scorer, /*cover_prefix=*/true));
      EXPECT_EQ(calls.of("lighthouse::_select_entries"), kNumSelecting);
      EXPECT_EQ(calls.of("lighthouse::_gather_by_norm"), 0);
      for (const char* name : {"lighthouse::_token_norms", "lighthouse::_gla_scores"}) {
        if (recompute == Recompute::kNone) once[name] = calls.of(name);
        EXPECT_EQ(calls.of(name), once[name]) << name;
      }
      EXPECT_GE(once["lighthouse::_token_norms"] + once["lighthouse::_gla_scores"], kNumSelecting);
      const int num_forward = recompute == Recompute::kFull ? 2 : 1;
      EXPECT_EQ(calls.of("lighthouse::_gather_rows"), num_forward * kNumSelecting);
    }
  };
  for (const Scorer scorer : kScorers) {
    for (const bool qk_norm : {false, true}) {
      if (!selects_in_gather(four_layers(qk_norm), scorer)) expect_once(scorer, qk_norm);
    }
  }
}

// All but the last of three, and of the one that is left, run once more.
TEST(Recompute, OfSeveralLayersRunsTheLastOnce) {
  const Calls calls;
  results(four_layers(false), {.recompute = Recompute::kFull, .recompute_layers = 3}, {},
          all_kinds(Scorer::kDilated, true));
  EXPECT_EQ(calls.of("lighthouse::_select_entries"), kNumSelecting);
  EXPECT_EQ(calls.of("lighthouse::_gather_rows"), 3 + 2);  // of layers 0 and 3
}

// What a layer adds to the stream is not needed in its backward: three of its four products are made once more. Those
// below the last of several run forward twice, once for the input of the next.
TEST(Recompute, LeavesOutTheLastProduct) {
  const auto products = [](const Execution& execution) {
    const Calls calls;
    results(four_layers(false), execution, {}, all_kinds(Scorer::kNorm, true));
    return calls.of("aten::mm");
  };
  const int kept = products({});
  EXPECT_EQ(products({.recompute = Recompute::kFull}), kept + 4 * 3);
  EXPECT_EQ(products({.recompute = Recompute::kFull, .recompute_layers = 3}), kept + 4 * 3 + 2 * 4);
}

TEST(Recompute, SelectsAgainWhereGatherScores) {
  const Calls calls;
  results(four_layers(false), {.recompute = Recompute::kFull}, {}, all_kinds(Scorer::kNorm, true));
  EXPECT_EQ(calls.of("lighthouse::_gather_by_norm"), 2 * kNumSelecting);
  EXPECT_EQ(calls.of("lighthouse::_gather_rows"), 0);
}

TEST(Recompute, SecondBackwardIsRefused) {
  const Decoder decoder(small_model(), {}, 5);
  const at::Tensor tokens = random_tokens(1, 20, 31);
  const at::Tensor loss = decoder.loss(tokens, tokens, AttentionMode::kDense);
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THROW(loss.backward(), c10::Error);  // not silently wrong
}

/// The first layer of a small model, on the test device.
struct FirstLayer {
  FirstLayer() : weights(make_weights(small_model(), {}, 5, test_device())) {
    draw_parameters(weights.values, small_model().init_std, 5);
    compute = ComputeWeights(weights.matrices, at::kFloat, test_device());
    compute.refresh();
  }
  Weights weights;
  ComputeWeights compute;
};

// The same where no loss comes before it, on CUDA too, whose kernels write without autograd's noticing.
TEST(Recompute, SecondBackwardOfTheFeedForwardIsRefused) {
  const FirstLayer first;
  const at::Tensor x = at::ones({1, 6, small_model().dim}, at::kFloat).to(test_device()).set_requires_grad(true);
  const auto gradient_of_two = [&](bool keep_gate_up) {
    x.mutable_grad().reset();
    const Residual out =
        feed_forward({x, std::nullopt}, first.weights.layers[0], first.compute.layers[0], 1e-5, keep_gate_up);
    const at::Tensor sum = out.update->sum();
    sum.backward({}, /*retain_graph=*/true);
    const at::Tensor once = x.grad().clone();
    sum.backward();
    return std::pair(once * 2, x.grad());
  };
  EXPECT_THAT([&] { gradient_of_two(true); },
              Throws<c10::Error>(Property(&c10::Error::msg, HasSubstr("second backward"))));
  const auto [expected, both] = gradient_of_two(false);  // which is multiplied out again each time
  EXPECT_TRUE(same_bits(both.cpu(), expected.cpu()));
}

// In a tile of all tokens, or of three, of which the last has one: the matrices' gradients are then sums in another
// order. Whatever is kept, the bits are those of the tile.
TEST(Recompute, OfTheFeedForwardByTilesIsThatOfTheWhole) {
  const FirstLayer first;
  const LayerWeights& layer = first.weights.layers[0];
  const at::Tensor x =
      at::linspace(-1, 1, 2 * 5 * small_model().dim, at::kFloat).sin().view({2, 5, -1}).to(test_device());
  const auto gradients = [&](bool keep_gate_up, ForwardFor use, int64_t tile) {
    const at::Tensor in = x.clone().set_requires_grad(true);
    std::vector<at::Tensor> of = {in, layer.post_attention_norm, layer.gate_proj, layer.up_proj, layer.down_proj};
    for (const at::Tensor& each : of) each.mutable_grad().reset();
    const Residual out =
        feed_forward({in, std::nullopt}, layer, first.compute.layers[0], 1e-5, keep_gate_up, use, tile);
    torch::autograd::backward({out.x, *out.update}, {at::cos(x), at::sin(3 * x)});
    std::vector<at::Tensor> found;
    for (const at::Tensor& each : of) found.push_back(each.grad().cpu());
    return found;
  };
  const auto whole = gradients(true, ForwardFor::kOutput, 10);
  for (const int64_t tile : {3, 10, 11}) {
    const auto kept = gradients(true, ForwardFor::kOutput, tile);
    expect_same_bits(gradients(false, ForwardFor::kOutput, tile), kept);
    expect_same_bits(gradients(true, ForwardFor::kBackward, tile), kept);
    if (tile >= 10) expect_same_bits(kept, whole);
    for (size_t i = 0; i < kept.size(); ++i) {
      // Sums over 10 tokens in fp32, in another order; what is summed is within 1.
      EXPECT_LE((kept[i] - whole[i]).abs().max().item<double>(), 20 * std::numeric_limits<float>::epsilon()) << i;
    }
  }
}

// As within an autograd function of the layers, or in a validation: no more than a tile has its gate and up.
TEST(Recompute, OfTheFeedForwardKeepsNoGateAndUpWhereThereIsNoBackward) {
  if (test_device() != at::kCPU) GTEST_SKIP() << "counts what the CPU's allocator hands out";
  const FirstLayer first;
  const int64_t num_tokens = 4096, dim = small_model().dim;
  const Residual in{at::ones({1, num_tokens, dim}), std::nullopt};
  const at::NoGradGuard no_grad;
  const LiveBytes live;
  feed_forward(in, first.weights.layers[0], first.compute.layers[0], 1e-5, /*keep_gate_up=*/true, ForwardFor::kOutput,
               /*tile_tokens=*/num_tokens / 16);
  const int64_t gate_up = num_tokens * 2 * small_model().ffn_dim * int64_t{sizeof(float)};
  const int64_t around = 4 * num_tokens * dim * int64_t{sizeof(float)};  // normed, what it is made of, and the result
  EXPECT_LE(live.most(), around + gate_up / 4);
}

TEST(FeedForwardTile, HoldsGateAndUpWithin8GiB) {
  EXPECT_EQ(feed_forward_tile(1536, 2), int64_t{1} << 20);   // the paper's model, bf16: 6 GiB
  EXPECT_EQ(feed_forward_tile(14336, 2), int64_t{1} << 17);  // Llama 3 8B
  EXPECT_EQ(feed_forward_tile(int64_t{1} << 40, 4), 1);
}

struct HeadInputs {
  at::Tensor x, update, norm, head, targets;
};

HeadInputs head_inputs() {
  const auto random = [](at::IntArrayRef shape, uint64_t stream) {
    at::Tensor tensor = at::empty(shape, at::kDouble);
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      tensor.mutable_data_ptr<double>()[i] = random_normal(stream, static_cast<uint64_t>(i));
    }
    return tensor;
  };
  HeadInputs in{random({2, 9, 12}, 1), random({2, 9, 12}, 2), random({12}, 3), random({31, 12}, 4),
                random_tokens(2, 9, 31)};
  in.targets[0][4] = -100;
  for (at::Tensor* each : {&in.x, &in.update, &in.norm, &in.head}) each->set_requires_grad(true);
  return in;
}

// The gradient of the head is kept in fp32, the type of parameters: 2^-24 of the largest.
TEST(HeadLoss, ByChunksIsTheCrossEntropy) {
  constexpr double kEps = 1e-5;
  const HeadInputs expected = head_inputs();
  const at::Tensor logits = at::linear(rms_norm(expected.x + expected.update, expected.norm, kEps), expected.head);
  (3 * at::cross_entropy_loss(logits.flatten(0, 1), expected.targets.flatten())).backward();
  const at::Tensor loss = at::cross_entropy_loss(logits.flatten(0, 1), expected.targets.flatten());
  constexpr int64_t kRowBytes = 31 * sizeof(double);
  for (const int64_t logit_bytes : {int64_t{1}, 5 * kRowBytes, 18 * kRowBytes, kLogitBytes}) {
    const HeadInputs in = head_inputs();
    const at::Tensor actual =
        head_loss({in.x, in.update}, in.norm, kEps, in.head, in.head.detach(), in.targets, logit_bytes);
    (3 * actual).backward();
    EXPECT_LE(max_abs(actual - loss), 1e-13 * max_abs(loss));
    for (const auto& [got, wanted] : {std::pair{in.x, expected.x},
                                      {in.update, expected.update},
                                      {in.norm, expected.norm},
                                      {in.head, expected.head}}) {
      EXPECT_LE(max_abs(got.grad() - wanted.grad()), 0x1p-23 * max_abs(wanted.grad())) << logit_bytes;
    }
  }
}

}  // namespace
}  // namespace lighthouse
