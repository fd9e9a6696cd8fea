// Gradients are summed, and their exchange with other ranks begins, while a backward pass makes more of them.
#include "train/gradient_sum.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "cpp/model/model_support.h"
#include "parallel/gradient_exchange.h"
#include "parallel/tree_sum.h"

namespace lighthouse {
namespace {

struct Variant {
  bool tie_embeddings;
  Recompute recompute;
  Accumulation accumulation;
  int64_t count;
};
void PrintTo(const Variant& variant, std::ostream* stream) {
  *stream << (variant.tie_embeddings ? "tied, " : "") << variant.recompute << ", " << variant.accumulation << " of "
          << variant.count;
}

constexpr size_t kLayers = 3;

Decoder decoder_of(const Variant& variant) {
  ModelConfig model = small_model();
  model.num_layers = kLayers;
  model.tie_embeddings = variant.tie_embeddings;
  return {model, {}, 1, {.recompute = variant.recompute}};
}

void run_backward(const Decoder& decoder, int64_t micro_batch) {
  const at::Tensor tokens = random_tokens(1, 16, 31, static_cast<uint64_t>(micro_batch));
  decoder.loss(tokens, tokens, AttentionMode::kDense).backward();
}

/// Counts how often the backward of each layer has come to its end.
class LayerEnds {
 public:
  explicit LayerEnds(const Decoder& decoder) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const std::string first = "model.layers." + std::to_string(layer) + ".input_layernorm.weight";
      find(decoder.parameters(), first).register_hook([this, layer](const at::Tensor&) { ++counts_[layer]; });
    }
  }
  int64_t of(size_t layer) const { return counts_[layer]; }

 private:
  std::vector<int64_t> counts_ = std::vector<int64_t>(kLayers, 0);
};

/// -1: behind or before all layers.
int64_t layer_of(const std::string& name) {
  const std::string prefix = "model.layers.";
  return name.starts_with(prefix) ? std::stoll(name.substr(prefix.size())) : -1;
}

class GradientSums : public testing::TestWithParam<Variant> {};

TEST_P(GradientSums, AreCompleteWhileBackwardGoesOn) {
  const Variant& variant = GetParam();
  const Decoder decoder = decoder_of(variant);
  const NamedTensors& parameters = decoder.parameters();
  std::vector<std::vector<at::Tensor>> terms(parameters.size());
  for (int64_t i = 0; i < variant.count; ++i) {
    run_backward(decoder, i);
    for (size_t p = 0; p < parameters.size(); ++p) terms[p].push_back(parameters[p].second.grad().clone());
    for (const auto& [name, parameter] : parameters) parameter.mutable_grad().reset();
  }

  const LayerEnds ends(decoder);
  std::vector<at::Tensor> seen(parameters.size());
  sum_gradients(
      parameters, variant.count, variant.accumulation, [&](int64_t i) { run_backward(decoder, i); },
      [&](size_t p) {
        const auto& [name, parameter] = parameters[p];
        EXPECT_FALSE(seen[p].defined()) << name << " is complete twice";
        EXPECT_TRUE(parameter.grad().is_contiguous());
        seen[p] = parameter.grad().clone();
        const int64_t layer = layer_of(name);
        const bool last = name == "model.embed_tokens.weight";
        const auto next = static_cast<size_t>(layer > 0 ? layer - 1 : kLayers - 1);
        if (last) {
          EXPECT_EQ(ends.of(0), variant.count) << "it comes at the end, also where it has two uses";
        } else if (layer != 0) {
          EXPECT_EQ(ends.of(next), variant.count - 1) << name << " came late";
        }
      });
  for (size_t p = 0; p < parameters.size(); ++p) {
    const auto& [name, parameter] = parameters[p];
    ASSERT_TRUE(seen[p].defined()) << name;
    EXPECT_TRUE(same_bits(seen[p], parameter.grad())) << name << " changed after it was complete";
    at::Tensor sum = terms[p].front().clone();
    for (int64_t i = 1; i < variant.count; ++i) sum.add_(terms[p][static_cast<size_t>(i)]);
    if (variant.accumulation == Accumulation::kTree) sum = tree_sum(terms[p]);
    EXPECT_TRUE(same_bits(parameter.grad(), sum)) << name;
  }
}

std::vector<Variant> variants() {
  std::vector<Variant> result;
  for (const bool tied : {false, true}) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      for (const Accumulation accumulation : {Accumulation::kSequence, Accumulation::kTree}) {
        for (const int64_t count : {1, 2, 5}) result.push_back({tied, recompute, accumulation, count});
      }
    }
  }
  return result;
}
INSTANTIATE_TEST_SUITE_P(Variants, GradientSums, testing::ValuesIn(variants()));

struct Done : c10d::Work {
  bool isCompleted() override { return true; }
  bool wait(std::chrono::milliseconds /*timeout*/) override { return true; }
};

/// The first of two ranks, of which the other has the same gradients. `on_send` is told of every all-to-all.
class Twin : public c10d::Backend {
 public:
  explicit Twin(std::function<void()> on_send) : Backend(0, 2), on_send_(std::move(on_send)) {}
  const std::string getBackendName() const override { return "twin"; }
  void abort() override {}
  c10::intrusive_ptr<c10d::Work> alltoall_base(at::Tensor& out, at::Tensor& in, std::vector<int64_t>& /*out_counts*/,
                                               std::vector<int64_t>& in_counts,
                                               const c10d::AllToAllOptions& /*options*/) override {
    for (const int64_t rank : {0, 1}) {
      out.slice(0, rank * in_counts[0], (rank + 1) * in_counts[0]).copy_(in.slice(0, 0, in_counts[0]));
    }
    on_send_();
    return c10::make_intrusive<Done>();
  }

 private:
  std::function<void()> on_send_;
};

class GradientReductions : public testing::TestWithParam<Variant> {};

TEST_P(GradientReductions, BeginBehindTheLastLayerAndEndBehindTheFirst) {
  const Variant& variant = GetParam();
  const Decoder decoder = decoder_of(variant);
  const NamedTensors& parameters = decoder.parameters();
  std::vector<at::Tensor> tensors;
  for (const auto& [name, parameter] : parameters) tensors.push_back(parameter);

  const LayerEnds ends(decoder);
  std::vector<size_t> layers_at_work;  // of each bucket, when it is sent: how many layers have not ended their backward
  Group group(c10::make_intrusive<Twin>([&] {
                size_t layers = 0;
                for (size_t layer = 0; layer < kLayers; ++layer) layers += ends.of(layer) < variant.count ? 1 : 0;
                layers_at_work.push_back(layers);
              }),
              {0, 1}, 0, nullptr);
  constexpr int64_t kPiece = 256, kBucket = 1024;
  const GradientExchange exchange(tensors, group, kPiece, kBucket);
  GradientReduction reduction(exchange);
  std::vector<at::Tensor> own(parameters.size());
  sum_gradients(
      parameters, variant.count, variant.accumulation, [&](int64_t i) { run_backward(decoder, i); },
      [&](size_t p) {
        own[p] = parameters[p].second.grad().clone();
        reduction.add(p, parameters[p].second.grad());
      });
  EXPECT_EQ(layers_at_work.size(), static_cast<size_t>(group.sent().at("sum of gradients").collectives));
  const size_t sent_in_backward = layers_at_work.size();
  reduction.finish();

  EXPECT_EQ(layers_at_work.size(), sent_in_backward) << "nothing is left to be sent when backward has ended";
  ASSERT_GT(layers_at_work.size(), 10U) << "there is nothing to test";
  EXPECT_TRUE(std::is_sorted(layers_at_work.rbegin(), layers_at_work.rend()));
  for (const size_t layers : {2, 1, 0}) EXPECT_THAT(layers_at_work, testing::Contains(layers)) << "not hidden";
  const auto behind_all = std::count(layers_at_work.begin(), layers_at_work.end(), size_t{0});
  EXPECT_LT(behind_all, 4) << "more than what holds a part of the embedding, or of the layer before it";
  for (const Piece& piece : exchange.pieces()) {
    const auto p = static_cast<size_t>(piece.parameter);
    const auto part = [&](const at::Tensor& x) { return x.view({-1}).slice(0, piece.begin, piece.end); };
    const bool owned = exchange.owns(static_cast<size_t>(&piece - exchange.pieces().data()));
    EXPECT_TRUE(same_bits(part(parameters[p].second.grad()), part(own[p]) * (owned ? 2 : 1))) << parameters[p].first;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, GradientReductions,
                         testing::Values(Variant{false, Recompute::kNone, Accumulation::kSequence, 1},
                                         Variant{false, Recompute::kFull, Accumulation::kTree, 3},
                                         Variant{true, Recompute::kNone, Accumulation::kTree, 2}));

}  // namespace
}  // namespace lighthouse
