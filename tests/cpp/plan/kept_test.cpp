// The memory that the plan says a layer keeps for backward, against what the decoder's autograd keeps: bytes that the
// allocator of the CPU has handed out between two moments and not got back.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>

#include "config/schema.h"
#include "cpp/parallel/ranks.h"
#include "model/decoder.h"
#include "parallel/gradient_exchange.h"
#include "plan/memory.h"
#include "plan_support.h"
#include "support/live_bytes.h"
#include "train/gradient_sum.h"

namespace lighthouse {
namespace {

/// What lives on after a forward pass and its loss; of a rank that shares its sequences in `group`, if one is given.
int64_t bytes_kept(const RunConfig& config, AttentionMode mode, Group* group = nullptr) {
  const Execution execution{.dtype = config.training.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat,
                            .recompute = config.training.recompute,
                            .recompute_layers = config.training.recompute_layers};
  const Decoder decoder(config.model, config.attention, 1, execution);
  RowShare share;
  if (group != nullptr) share = {decoder.token_spans(config.training.seq_len, {}, group->size()), group};
  const int64_t num_tokens = group != nullptr ? share.own().size() : config.training.seq_len;
  const at::Tensor tokens = at::zeros({config.training.batch_size, num_tokens}, at::kLong);
  const LiveBytes live;
  const at::Tensor loss = decoder.loss(tokens, tokens, mode, {}, share);
  return live.bytes();
}

/// With the vocabulary of these tests most is taken in the loss, while all is kept.
int64_t bytes_planned(const RunConfig& config, AttentionMode mode) {
  const StepMemory memory = step_memory(config, mode == AttentionMode::kLighthouse, /*on_cuda=*/false);
  EXPECT_EQ(memory.peak, "the loss");
  return memory.kept;
}

RunConfig config_of(int64_t num_layers, Recompute recompute) {
  RunConfig config = small_config();
  config.model.num_layers = num_layers;
  config.model.vocab_size = 1000;
  config.training.seq_len = 64;
  config.training.batch_size = 2;
  config.training.recompute = recompute;
  return config;
}

/// In ATen the norm of q and k is one kernel on CUDA and a composition on the CPU, which keeps its result before the
/// weight too, in fp32.
int64_t more_on_the_cpu(const RunConfig& config) {
  if (!config.model.qk_norm() || config.training.recompute == Recompute::kFull) return 0;
  const int64_t channels = (config.model.num_heads + config.model.num_kv_heads) * config.model.head_dim;
  return config.training.batch_size * config.training.seq_len * channels * int64_t{sizeof(float)};
}

struct Variant {
  const char* name;
  std::function<void(RunConfig&)> change;
};
void PrintTo(const Variant& variant, std::ostream* stream) { *stream << variant.name; }

class KeptByALayer : public testing::TestWithParam<std::tuple<Variant, Recompute>> {};

// Of three layers the last: two are left, and what all layers share counts in neither.
TEST_P(KeptByALayer, IsWhatAutogradKeeps) {
  const auto& [variant, recompute] = GetParam();
  RunConfig three = config_of(3, recompute);
  variant.change(three);
  RunConfig two = three;
  two.model.num_layers = 2;
  for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
    EXPECT_EQ(bytes_kept(three, mode) - bytes_kept(two, mode),
              bytes_planned(three, mode) - bytes_planned(two, mode) + more_on_the_cpu(three))
        << (mode == AttentionMode::kDense ? "dense" : "lighthouse");
  }
}

// Of four layers the last two, which have one input.
TEST(Kept, ByLayersThatShareAnInputIsWhatAutogradKeeps) {
  for (const Scorer scorer : {Scorer::kNorm, Scorer::kDilated}) {
    RunConfig four = config_of(4, Recompute::kFull);
    four.attention.scorer = scorer;
    four.training.recompute_layers = 2;
    RunConfig two = four;
    two.model.num_layers = 2;
    for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
      EXPECT_EQ(bytes_kept(four, mode) - bytes_kept(two, mode), bytes_planned(four, mode) - bytes_planned(two, mode))
          << scorer << (mode == AttentionMode::kDense ? ", dense" : ", lighthouse");
    }
  }
}

// Of the first rank, which nothing is carried to.
TEST(Kept, ByALayerOfRanksThatShareSequencesIsWhatAutogradKeeps) {
  for (const auto& [recompute, scorer] : {std::pair{Recompute::kNone, Scorer::kNorm},
                                          {Recompute::kFull, Scorer::kNorm},
                                          {Recompute::kFull, Scorer::kDilated}}) {
    RunConfig three = config_of(3, recompute);
    three.attention.scorer = scorer;
    three.model.num_heads = 4;
    three.model.num_kv_heads = 2;
    three.attention.topk = 4;
    three.attention.tile_topk = 1;
    three.attention.num_levels = 3;
    three.parallel.context = 2;
    three.training.seq_len = 256;
    RunConfig two = three;
    two.model.num_layers = 2;
    for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
      const auto outcomes = parallel_test::run_ranks(2, [&](World& world) {
        const auto group = world.make_group("context", {0, 1});
        const int64_t of_three = bytes_kept(three, mode, group.get());
        return std::to_string(of_three - bytes_kept(two, mode, group.get()));
      });
      EXPECT_EQ(outcomes.front().text, std::to_string(bytes_planned(three, mode) - bytes_planned(two, mode)))
          << recompute << ", " << scorer << (mode == AttentionMode::kDense ? ", dense" : ", lighthouse");
    }
  }
}

// Layers that are run again from their input hold nothing of those before them: what one layer makes, and what is kept.
TEST(Peak, OfTheForwardOfLayersThatAreRunAgainIsThatOfOne) {
  for (const int64_t together : {1, 2}) {
    RunConfig config = config_of(4, Recompute::kFull);
    config.model.vocab_size = 16;
    config.model.ffn_dim = 8 * config.model.dim;
    config.training.seq_len = 4096;
    const Decoder decoder(config.model, config.attention, 1,
                          {.recompute = Recompute::kFull, .recompute_layers = together});
    const at::Tensor tokens = at::zeros({1, config.training.seq_len}, at::kLong);
    const LiveBytes live;
    const at::Tensor loss = decoder.loss(tokens, tokens, AttentionMode::kLighthouse);
    const int64_t stream = config.training.seq_len * config.model.dim * int64_t{sizeof(float)};
    // Inputs, of layers together one and that of the layer; gate, up and SwiGLU of 8 dim each; x, the update, their
    // sum, normed, and what is added to it.
    const int64_t inputs = 4 / together + (together - 1);
    EXPECT_LE(live.most(), (inputs + 3 * 8 + 5) * stream) << together;
  }
}

/// Adds ones to all gradients, those of the last parameters first, as a decoder's backward does.
void add_ones(const NamedTensors& parameters) {
  at::Tensor sum = at::zeros({}).requires_grad_(true);
  for (const auto& [name, parameter] : parameters) sum = sum + parameter.sum();
  sum.backward();
}

// Of a model so large, and sequences so short, that gradients are nearly all that comes and goes.
TEST(Gradients, OfATreeAreAsManySetsAsAreAllocated) {
  for (const auto& [count, num_sets] : {std::pair{1, 1}, {2, 1}, {3, 2}, {4, 2}, {8, 3}, {9, 3}}) {
    RunConfig config = small_config();
    config.model.dim = 64;
    config.model.ffn_dim = 256;
    config.training.accumulation = Accumulation::kTree;
    config.training.gradient_accumulation = count;
    const Decoder decoder(config.model, config.attention, 1, {});
    const LiveBytes live;
    sum_gradients(decoder.parameters(), count, Accumulation::kTree,
                  [&](int64_t /*micro_batch*/) { add_ones(decoder.parameters()); });
    const int64_t planned = step_memory(config, true, false).gradients;
    const int64_t of_one = (layer_parameters(config.model) + config.model.vocab_size * 64) * int64_t{sizeof(float)};
    EXPECT_LE(live.most(), planned + planned / 100) << count;
    EXPECT_GE(live.most(), planned - of_one)
        << count << "; the last micro-batch's go one by one, a layer's in the plan";
    const int64_t of_set = num_parameters(config.model) * int64_t{sizeof(float)};
    EXPECT_GT(planned, (num_sets * of_set) * 98 / 100) << count;
    EXPECT_LT(planned, (num_sets + 1) * of_set) << count;
  }
}

// Buckets that ranks exchange: as many bytes are sent as received, and so many are under way.
TEST(Gradients, UnderWayBetweenRanksTakeWhatIsPlanned) {
  constexpr int64_t kPiece = 1024, kBucket = 16 * kPiece, kNumBuckets = 9;
  const auto outcomes = parallel_test::run_ranks(4, [&](World& world) {
    const auto group = world.make_group("all", {0, 1, 2, 3});
    const std::vector<at::Tensor> parameters = {at::zeros({kBucket * kNumBuckets})};
    const GradientExchange exchange(parameters, *group, kPiece, kBucket);
    const LiveBytes live;
    exchange.reduce(parameters);
    return std::to_string(live.most());
  });
  for (const auto& outcome : outcomes) {
    const int64_t planned = 2 * kBucketsUnderWay * kBucket * int64_t{sizeof(float)};
    const int64_t allocated = std::stoll(outcome.text);
    EXPECT_GE(allocated, planned);
    EXPECT_LE(allocated, 2 * planned) << "each of two threads of Gloo may hold one that has ended, for a moment";
  }
}

// The rest is what lies around the layers: the tokens, which are there before, and what the loss leaves: itself and the
// gradients of head and last norm, which the plan counts among the gradients.
TEST(Kept, AroundTheLayersIsWhatAutogradKeeps) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
    const RunConfig config = config_of(2, recompute);
    const int64_t tokens = 2 * 64 * 2 * int64_t{sizeof(int64_t)};
    const int64_t of_loss = (1000 * 8 + 8 + 1) * int64_t{sizeof(float)};
    EXPECT_EQ(bytes_kept(config, AttentionMode::kDense) - of_loss,
              bytes_planned(config, AttentionMode::kDense) - tokens);
  }
}

const Variant kVariants[] = {
    {"norm", [](RunConfig&) {}},
    {"ungrouped", [](RunConfig& config) { config.model.num_kv_heads = 2; }},
    {"qk_norm", [](RunConfig& config) { config.model.family = ModelFamily::kQwen3; }},
    {"qk_norm_in_bf16",
     [](RunConfig& config) {
       config.model.family = ModelFamily::kQwen3;
       config.training.precision = Precision::kBf16;
     }},
    {"dilated", [](RunConfig& config) { config.attention.scorer = Scorer::kDilated; }},
    {"gla", [](RunConfig& config) { config.attention.scorer = Scorer::kGla; }},
    {"random", [](RunConfig& config) { config.attention.scorer = Scorer::kRandom; }},
    {"bf16", [](RunConfig& config) { config.training.precision = Precision::kBf16; }},
    {"levels", [](RunConfig& config) { config.attention.num_levels = 4; }},
};
INSTANTIATE_TEST_SUITE_P(Variants, KeptByALayer,
                         testing::Combine(testing::ValuesIn(kVariants),
                                          testing::Values(Recompute::kNone, Recompute::kSelective, Recompute::kFull)),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param).name) + "_" +
                                  std::string(word(std::get<1>(instance.param)));
                         });

}  // namespace
}  // namespace lighthouse
