// Matrices whose values are on the host: the device has what products read, and the same bits come out.
#include <ATen/ops/isnan.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "cpp/model/model_support.h"
#include "lighthouse/check.h"
#include "model/model_io.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Execution on(WeightPlace place) {
  return {.dtype = at::kBFloat16,
          .device = test_device(),
          .recompute = Recompute::kFull,
          .deterministic = true,
          .weights = place};
}

ModelConfig model_of(bool tied) {
  ModelConfig model = small_model();
  model.family = tied ? ModelFamily::kQwen3 : ModelFamily::kQwen2;  // with norms, and with biases, of heads
  model.tie_embeddings = tied;
  return model;
}

AttentionConfig gated() {
  AttentionConfig attention;
  attention.topk = 4;
  attention.tile_topk = 4;
  attention.scorer = Scorer::kGla;
  attention.full_attention_layers = {1};
  return attention;
}

/// Loss and gradients.
std::vector<at::Tensor> results(const Decoder& decoder, AttentionMode mode) {
  const at::Tensor tokens = random_tokens(1, 70, 31).to(test_device());
  const at::Tensor loss = decoder.loss(tokens, random_tokens(1, 70, 31, 2).to(test_device()), mode);
  loss.backward();
  std::vector<at::Tensor> tensors{loss};
  for (const auto& [name, parameter] : decoder.parameters()) {
    tensors.push_back(parameter.grad());
    parameter.mutable_grad().reset();
  }
  return tensors;
}

void expect_alike(const Decoder& a, const Decoder& b) {
  for (const AttentionMode mode : {kDense, kLighthouse}) {
    const std::vector<at::Tensor> first = results(a, mode), second = results(b, mode);
    ASSERT_EQ(first.size(), second.size());
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(same_bits(first[i], second[i])) << i;
  }
}

TEST(HostWeights, GiveTheSameLossAndGradients) {
  for (const bool tied : {false, true}) {
    SCOPED_TRACE(tied);
    const Decoder there(model_of(tied), gated(), 5, on(WeightPlace::kDevice));
    Decoder here(model_of(tied), gated(), 5, on(WeightPlace::kHost));
    expect_alike(here, there);

    Decoder other(model_of(tied), gated(), 6, on(WeightPlace::kDevice));
    NamedTensors weights = other.parameters();
    weights.insert(weights.end(), other.buffers().begin(), other.buffers().end());
    load_parameters(here, weights);
    expect_alike(here, other);
    expect_alike(here.with_attention(gated()), other);
  }
}

TEST(HostWeights, LieWhereTheyAreReadAndWritten) {
  const Decoder decoder(model_of(false), gated(), 5, on(WeightPlace::kHost));
  results(decoder, kDense);
  const std::vector<at::Tensor> casts = decoder.casts();
  const NamedTensors &parameters = decoder.parameters(), &values = decoder.values();
  ASSERT_EQ(casts.size(), parameters.size());
  ASSERT_EQ(values.size(), parameters.size());
  for (size_t i = 0; i < casts.size(); ++i) {
    const auto& [name, value] = values[i];
    const at::Tensor& parameter = parameters[i].second;
    EXPECT_EQ(parameters[i].first, name);
    EXPECT_EQ(parameter.sizes(), value.sizes()) << name;
    EXPECT_EQ(parameter.device().type(), test_device().type()) << name;
    EXPECT_TRUE(parameter.requires_grad()) << name;
    if (value.dim() == 1) {
      EXPECT_TRUE(value.is_same(parameter)) << name;
      EXPECT_FALSE(casts[i].defined()) << name;
      continue;
    }
    EXPECT_TRUE(value.is_cpu() && value.is_contiguous()) << name;
    EXPECT_EQ(parameter.storage().nbytes(), sizeof(float)) << name;
    EXPECT_TRUE(at::isnan(parameter.detach()).all().item<bool>()) << name << ": one who reads it must see that";
    EXPECT_EQ(casts[i].device(), parameter.device()) << name;
    EXPECT_TRUE(same_bits(casts[i].cpu(), value.to(at::kBFloat16))) << name;
  }
}

TEST(HostWeights, NeedProductsThatReadCopies) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Execution execution = on(WeightPlace::kHost);
    execution.dtype = dtype;
    EXPECT_THAT([&] { Decoder(small_model(), {}, 5, execution); },
                ThrowsMessage<InvalidArgument>(HasSubstr("need compute dtype bfloat16, not ")));
  }
  const Decoder decoder(small_model(), gated(), 5, on(WeightPlace::kHost));
  const at::Tensor tokens = random_tokens(1, 9, 31).to(test_device());
  EXPECT_THAT([&] { decoder.forward(tokens, kDense); }, ThrowsMessage<InvalidArgument>(HasSubstr("call loss, or use")));
  const at::NoGradGuard no_grad;
  const Decoder there(small_model(), gated(), 5, on(WeightPlace::kDevice));
  EXPECT_TRUE(same_bits(decoder.forward(tokens, kDense), there.forward(tokens, kDense)));
}

}  // namespace
}  // namespace lighthouse
