// The decoder on a GPU against the decoder on the CPU, and what only a GPU does: layer inputs that wait in host memory.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cpp/model/model_support.h"
#include "model/generate.h"
#include "model/host_stash.h"
#include "model/kv_cache.h"
#include "support/gpu_gate.h"

namespace lighthouse {
namespace {

constexpr int64_t kSeqLen = 96;
constexpr AttentionMode kLighthouse = AttentionMode::kLighthouse;
const Execution kCpu64{.dtype = at::kDouble};

/// RoPE's angles are fp32 and worked out on either device: up to 1e-5 apart, which two layers and a backward carry on.
/// fp32 errs less. A wrong formula moves a result by a visible fraction.
constexpr double kRotationError = 1e-4;
constexpr double kBFloat16Rounding = 0x1p-8;

struct Case {
  std::string name;
  Scorer scorer = Scorer::kNorm;
  std::vector<int64_t> cu_seqlens = {};
  bool qk_norm = false;
  int64_t head_dim = 8;  ///< 64: what the kernels that turn heads take
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const std::vector<int64_t> kDocuments{0, 40, 41, 41, kSeqLen};
const Case kCases[] = {{"norm"},
                       {"dilated", Scorer::kDilated},
                       {"gla", Scorer::kGla},
                       {"norm_packed", Scorer::kNorm, kDocuments},
                       {"dilated_packed", Scorer::kDilated, kDocuments},
                       {"gla_packed", Scorer::kGla, kDocuments},
                       {"qk_norm", Scorer::kNorm, {}, true},
                       {"qk_norm_gla_packed", Scorer::kGla, kDocuments, true},
                       {"wide", Scorer::kNorm, {}, false, 64},
                       {"wide_packed", Scorer::kNorm, kDocuments, false, 64}};

/// Two tiles, three levels, about a third of the tokens kept; or all entries of all levels, whatever their scores.
enum class Kept { kSome, kAll };

Decoder make_decoder(const Case& c, const Execution& execution, Kept kept = Kept::kSome) {
  ModelConfig model = small_model();
  model.vocab_size = 131;
  model.family = c.qk_norm ? ModelFamily::kQwen3 : ModelFamily::kLlama;
  model.head_dim = c.head_dim;
  model.dim = 3 * c.head_dim;
  AttentionConfig attention;
  attention.num_levels = 3;
  attention.pooling_factor = 2;
  attention.topk = kept == Kept::kAll ? kSeqLen : 4;
  attention.tile_topk = kept == Kept::kAll ? kSeqLen : 2;
  attention.scorer = c.scorer;
  Decoder decoder(model, attention, 5, execution);
  const Decoder spread(model, attention, 5);
  spread_norms(spread);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < spread.parameters().size(); ++i) {
    decoder.parameters()[i].second.copy_(spread.parameters()[i].second);
  }
  return decoder;
}

/// No token twice: in layer 0 equal ones would tie.
at::Tensor distinct_tokens(const Decoder& decoder, int64_t step) {
  at::Tensor tokens = at::empty({1, kSeqLen}, at::kLong);
  for (int64_t i = 0; i < kSeqLen; ++i) tokens.mutable_data_ptr<int64_t>()[i] = (step * i + 11) % 131;
  return tokens.to(decoder.device());
}

/// Loss and gradients of all parameters, on the CPU.
std::vector<at::Tensor> loss_and_gradients(const Decoder& decoder, const std::vector<int64_t>& cu_seqlens) {
  at::Tensor targets = distinct_tokens(decoder, 53);
  targets[0][7] = -100;
  const at::Tensor loss = decoder.loss(distinct_tokens(decoder, 37), targets, kLighthouse, cu_seqlens);
  loss.backward();
  std::vector<at::Tensor> results{loss.detach().cpu()};
  for (const auto& [name, parameter] : decoder.parameters()) results.push_back(parameter.grad().cpu());
  return results;
}

SelectionTape selections(const Decoder& decoder, const std::vector<int64_t>& cu_seqlens, at::Device to = at::kCPU) {
  SelectionTape tape;
  decoder.hidden_states(distinct_tokens(decoder, 37), kLighthouse, cu_seqlens, &tape);
  for (at::Tensor& selection : tape) selection = selection.to(to);
  return tape;
}

/// ||actual - expected|| / ||expected||
double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor right = expected.to(at::kDouble);
  return ((actual.cpu().to(at::kDouble) - right).norm() / right.norm()).item<double>();
}

class DecoderCuda : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  }
};
INSTANTIATE_TEST_SUITE_P(Cases, DecoderCuda, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DecoderCuda, LossAndGradientsAreThoseOfTheCpu) {
  const Case& c = GetParam();
  const Decoder cpu = make_decoder(c, kCpu64);
  const SelectionTape selected = selections(cpu, c.cu_seqlens);
  const std::vector<at::Tensor> expected = loss_and_gradients(cpu, c.cu_seqlens);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Decoder decoder = make_decoder(c, {.dtype = dtype, .device = at::Device(at::kCUDA, 0)});
    const SelectionTape ours = selections(decoder, c.cu_seqlens);
    for (size_t layer = 0; layer < selected.size(); ++layer) {
      ASSERT_TRUE(at::equal(ours[layer], selected[layer])) << "a near tie of layer " << layer << ", or a fault";
    }
    const std::vector<at::Tensor> actual = loss_and_gradients(decoder, c.cu_seqlens);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LE(error_of(actual[i], expected[i]), kRotationError) << c10::toString(dtype) << ' ' << i;
    }
  }
}

// With all entries kept, rounding decides nothing: bf16 errs as it does on the CPU, whose sums have another order.
TEST_P(DecoderCuda, LossAndGradientsInBFloat16ErrAsOnTheCpu) {
  const Case& c = GetParam();
  const auto results = [&](const Execution& execution) {
    return loss_and_gradients(make_decoder(c, execution, Kept::kAll), c.cu_seqlens);
  };
  const std::vector<at::Tensor> expected = results(kCpu64);
  const std::vector<at::Tensor> on_cpu = results({.dtype = at::kBFloat16});
  const std::vector<at::Tensor> actual = results({.dtype = at::kBFloat16, .device = at::Device(at::kCUDA, 0)});
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LE(error_of(actual[i], expected[i]), 3 * error_of(on_cpu[i], expected[i]) + 2 * kBFloat16Rounding) << i;
  }
}

TEST_P(DecoderCuda, HeldSelectionsInBFloat16ErrAsOnTheCpu) {
  const Case& c = GetParam();
  const Decoder exact = make_decoder(c, kCpu64);
  const SelectionTape held = selections(exact, c.cu_seqlens);
  const auto hidden = [&](const Decoder& decoder, const SelectionTape& tape) {
    return decoder.hidden_states(distinct_tokens(decoder, 37), tape, c.cu_seqlens);
  };
  const at::Device gpu(at::kCUDA, 0);
  const at::Tensor expected = hidden(exact, held);
  const at::Tensor on_cpu = hidden(make_decoder(c, {.dtype = at::kBFloat16}), held);
  const at::Tensor actual =
      hidden(make_decoder(c, {.dtype = at::kBFloat16, .device = gpu}), selections(exact, c.cu_seqlens, gpu));
  EXPECT_LE(error_of(actual, expected), 3 * error_of(on_cpu, expected) + 2 * kBFloat16Rounding);
}

TEST_P(DecoderCuda, RecomputationAndOffloadChangeNoBit) {
  const Case& c = GetParam();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto results = [&](Recompute recompute, int64_t offload_layers, int64_t recompute_layers) {
      const Execution execution{dtype,          at::Device(at::kCUDA, 0), recompute,
                                offload_layers, recompute_layers,         /*deterministic=*/true};
      return loss_and_gradients(make_decoder(c, execution), c.cu_seqlens);
    };
    const std::vector<at::Tensor> kept = results(Recompute::kNone, 0, 1);
    for (const auto& [recompute, offload_layers, recompute_layers] : {std::tuple{Recompute::kNone, 0, 1},
                                                                      {Recompute::kSelective, 0, 1},
                                                                      {Recompute::kFull, 0, 1},
                                                                      {Recompute::kFull, 1, 1},
                                                                      {Recompute::kFull, 1000, 1},
                                                                      {Recompute::kFull, 0, 2},
                                                                      {Recompute::kFull, 1000, 2}}) {
      const std::vector<at::Tensor> again = results(recompute, offload_layers, recompute_layers);
      for (size_t i = 0; i < kept.size(); ++i) {
        EXPECT_TRUE(same_bits(again[i], kept[i]))
            << c10::toString(dtype) << " recompute " << static_cast<int>(recompute) << " offload " << offload_layers
            << " together " << recompute_layers << ' ' << i;
      }
    }
  }
}

TEST_P(DecoderCuda, DecodingInPiecesIsOnePass) {
  const at::NoGradGuard no_grad;
  const Decoder decoder = make_decoder(GetParam(), {.dtype = at::kDouble, .device = at::Device(at::kCUDA, 0)});
  const at::Tensor tokens = distinct_tokens(decoder, 37);
  const at::Tensor logits = decoder.forward(tokens, AttentionMode::kDense);
  KvCache cache;
  for (const int64_t piece : {5, 1, 1, 30, 1, 58}) {
    const at::Tensor last = decoder.decode(tokens.narrow(1, cache.length(), piece), cache);
    expect_equal_in_fp64(last.cpu(), logits.select(1, cache.length() - 1).cpu());
  }
}

TEST_P(DecoderCuda, GeneratesWhatTheCpuGenerates) {
  const std::vector<int64_t> prompt{3, 1, 4, 1, 5, 9};
  const Decoder cpu = make_decoder(GetParam(), kCpu64);
  const Decoder gpu = make_decoder(GetParam(), {.dtype = at::kDouble, .device = at::Device(at::kCUDA, 0)});
  for (const bool greedy : {true, false}) {
    const GenerateOptions options{.max_tokens = 40, .greedy = greedy, .top_p = 0.9, .seed = 3};
    EXPECT_EQ(generate(gpu, prompt, options), generate(cpu, prompt, options)) << greedy;
  }
}

/// 64 MiB: a copy takes milliseconds, in which the memory of the stored ones is asked for again.
TEST(HostStashCuda, GivesBackWhatWasStoredThoughItsMemoryIsUsedAgain) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const auto tensor_of = [](double value) {
    return at::full({int64_t{1} << 24}, value, at::TensorOptions().device(at::kCUDA).dtype(at::kFloat));
  };
  constexpr int kStored = 6, kCount = 8;
  HostStash stash;
  std::vector<size_t> places;
  for (int i = 0; i < kCount; ++i) {
    places.push_back(i < kStored ? stash.store(tensor_of(i)) : stash.keep(tensor_of(i)));
    tensor_of(-1);  // takes the freed memory, if it is free
  }
  for (int i = kCount - 1; i >= 0; --i) {
    const at::Tensor back = stash.fetch(places[static_cast<size_t>(i)]);
    EXPECT_TRUE(back.is_cuda());
    EXPECT_TRUE(at::equal(back, tensor_of(i))) << i;
  }
}

TEST(HostStashCuda, KeepsTensorsOfTheCpuAsTheyAre) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  HostStash stash;
  const at::Tensor x = at::full({3}, 2.0);
  EXPECT_TRUE(stash.fetch(stash.store(x)).is_same(x));
}

}  // namespace
}  // namespace lighthouse
