// What only a GPU can show of the operators: sizes past 2^31 elements and 65,535 rows, CUDA graphs.
// The tests of tests/cpp/ops run on CUDA as well, with LIGHTHOUSE_TEST_DEVICE=cuda.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <tuple>

#include "lighthouse/ops.h"
#include "ops/inner_attention.h"
#include "ops/long_attention.h"
#include "support/attention_results.h"
#include "support/gpu_gate.h"

namespace lighthouse {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

/// Skips where there is no GPU, or one with less memory free.
#define NEED_DEVICE(gib)                                                        \
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device"; \
  if (!has_free((gib)*kGiB)) GTEST_SKIP() << "the device has less than " << (gib) << " GiB free"

int64_t free_bytes() {
  size_t free = 0;
  size_t total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

bool has_free(int64_t bytes) {
  if (free_bytes() < bytes) c10::cuda::CUDACachingAllocator::emptyCache();
  return free_bytes() >= bytes;
}

struct Inputs {
  at::Tensor q, k, v, dout;
};

Inputs make_inputs(int64_t seq_len, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                   at::ScalarType dtype = at::kBFloat16) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(dtype);
  return {
      at::randn({1, seq_len, num_heads, head_dim}, options), at::randn({1, seq_len, num_kv_heads, head_dim}, options),
      at::randn({1, seq_len, num_kv_heads, head_dim}, options), at::randn({1, seq_len, num_heads, head_dim}, options)};
}

AttentionOptions make_options(int64_t topk, int64_t num_levels = 3, int64_t pooling_factor = 4) {
  AttentionOptions options;
  options.selection_config.topk = topk;
  options.selection_config.num_levels = num_levels;
  options.selection_config.pooling_factor = pooling_factor;
  return options;
}

/// o, dq, dk, dv.
std::vector<at::Tensor> results_of(const Inputs& inputs, const AttentionOptions& options) {
  return test_support::attention_results(
      inputs, [&](const auto& q, const auto& k, const auto& v) { return lighthouse_attention(q, k, v, options); });
}

/// Heads [first, first + 1) of everything.
Inputs one_head(const Inputs& inputs, int64_t head) {
  const auto part = [&](const at::Tensor& x) { return x.narrow(2, head, 1).contiguous(); };
  return {part(inputs.q), part(inputs.k), part(inputs.v), part(inputs.dout)};
}

at::Tensor selection_of(const Inputs& inputs, const SelectionConfig& config) {
  const auto [s_qk, s_kq] = token_scores(inputs.q, inputs.k, inputs.v);
  return select(s_qk, s_kq, config);
}

TEST(NaNMemoryCuda, IsWhatANewTensorHolds) {
  NEED_DEVICE(1);
  if (std::getenv("LIGHTHOUSE_TEST_MEMORY") == nullptr) GTEST_SKIP() << "LIGHTHOUSE_TEST_MEMORY is not nan";
  for (const int64_t size : {int64_t{1000}, int64_t{10} << 20}) {
    EXPECT_TRUE(at::empty({size}, at::TensorOptions().device(at::kCUDA)).isnan().all().item<bool>()) << size;
  }
}

TEST(LargeCuda, MoreThan2To31Elements) {
  NEED_DEVICE(60);
  // 131,104 * 130 * 128 = 2.18e9 elements; 131,104 is no multiple of the window of 64.
  const Inputs inputs = make_inputs(131104 - 7, 130, 130, 128);
  ASSERT_GT(inputs.q.numel(), int64_t{1} << 31);
  const AttentionOptions options = make_options(64, 4, 4);
  const std::vector<at::Tensor> all = results_of(inputs, options);
  for (const int64_t head : {0, 67, 129}) {
    const std::vector<at::Tensor> alone = results_of(one_head(inputs, head), options);
    EXPECT_TRUE(at::equal(all[0].select(2, head), alone[0].select(2, 0))) << "o of head " << head;
    for (int i = 1; i < 4; ++i) {  // stock attention's backward may differ in its last bits
      const at::Tensor difference = all[i].select(2, head).to(at::kFloat) - alone[i].select(2, 0).to(at::kFloat);
      EXPECT_LE(difference.norm().item<double>(), 1e-2 * alone[i].to(at::kFloat).norm().item<double>()) << i;
    }
  }
}

TEST(LargeCuda, AMillionTokensAndMoreThan65535Rows) {
  NEED_DEVICE(40);
  constexpr int64_t kLength = int64_t{1} << 20;
  const Inputs inputs = make_inputs(kLength, 2, 1, 128);
  const AttentionOptions options = make_options(8192);
  EXPECT_GT(gathered_length(kLength, options.selection_config), 65535);
  const std::vector<at::Tensor> results = results_of(inputs, options);
  for (const at::Tensor& x : results) EXPECT_TRUE(x.isfinite().all().item<bool>());
  // The selection is the CPU's for the same scores; every token is covered.
  const auto [s_qk, s_kq] = token_scores(inputs.q, inputs.k, inputs.v);
  const at::Tensor on_cpu = select(s_qk.cpu(), s_kq.cpu(), options.selection_config);
  EXPECT_TRUE(at::equal(select(s_qk, s_kq, options.selection_config).cpu(), on_cpu));
  const at::Tensor of_ones = lighthouse_attention(inputs.q, inputs.k, at::ones_like(inputs.v), options);
  EXPECT_GE(of_ones.min().item<float>(), 0.99F);
}

/// Whichever kernel `deterministic` takes here: cuDNN's with its repeatable backward, or FlashAttention-2.
class DeterministicCuda : public ::testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

TEST_P(DeterministicCuda, AttentionIsRepeatable) {
  NEED_DEVICE(6);
  const auto [num_kv_heads, head_dim] = GetParam();
  const Inputs inputs = make_inputs(32768, 8, num_kv_heads, head_dim);
  AttentionOptions options = make_options(512);
  const std::vector<at::Tensor> stock = results_of(inputs, options);
  options.deterministic = true;
  const std::vector<at::Tensor> first = results_of(inputs, options);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::vector<at::Tensor> again = results_of(inputs, options);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(first[i], again[i])) << i;
  }
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());  // as it was
  // Both round the probabilities, the gradients of the scores and the results to bf16, each by at most one part in 2^8.
  for (int i = 0; i < 4; ++i) {
    const at::Tensor difference = first[i].to(at::kFloat) - stock[i].to(at::kFloat);
    EXPECT_LE(difference.norm().item<double>(), 6.0 / 256 * stock[i].to(at::kFloat).norm().item<double>()) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(HeadsAndChannels, DeterministicCuda,
                         ::testing::Combine(::testing::Values(8, 2), ::testing::Values(64, 128)));

TEST(GraphCuda, ReplayGivesTheSameBits) {
  NEED_DEVICE(4);
  const Inputs inputs = make_inputs(8192, 4, 4, 128);
  const AttentionOptions options = make_options(128);
  const c10::cuda::CUDAStreamGuard on_a_side_stream(c10::cuda::getStreamFromPool());
  const at::NoGradGuard no_grad;
  const at::Tensor expected = lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const at::Tensor out = lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  graph.capture_end();
  for (int repeat = 0; repeat < 3; ++repeat) {
    out.fill_(0);
    graph.replay();
    EXPECT_TRUE(at::equal(out, expected));
  }
  inputs.v.mul_(-1);  // inputs are read at every replay
  graph.replay();
  EXPECT_TRUE(at::equal(out, -expected));
}

TEST(GraphCuda, PackedDocumentsAndBackwardAreCaptured) {
  NEED_DEVICE(4);
  const Inputs inputs = make_inputs(8192, 4, 2, 64);
  AttentionOptions options = make_options(128);
  std::vector<int64_t> cu_seqlens{0};
  for (int64_t end = 37; end < 8192; end += 61) cu_seqlens.push_back(end);
  cu_seqlens.push_back(8192);
  options.cu_seqlens = cu_seqlens;
  const c10::cuda::CUDAStreamGuard on_a_side_stream(c10::cuda::getStreamFromPool());
  const std::vector<at::Tensor> expected = results_of(inputs, options);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const std::vector<at::Tensor> results = results_of(inputs, options);
  graph.capture_end();
  graph.replay();
  EXPECT_TRUE(at::equal(results[0], expected[0]));
  for (int i = 1; i < 4; ++i) {
    const at::Tensor difference = results[i].to(at::kFloat) - expected[i].to(at::kFloat);
    EXPECT_LE(difference.norm().item<double>(), 1e-2 * expected[i].to(at::kFloat).norm().item<double>()) << i;
  }
}

TEST(LongAttentionCuda, IsTakenFromItsLengthOnAndAgreesWithOneCall) {
  NEED_DEVICE(4);
  const Inputs by_token = make_inputs(ops::kLongRows + 77, 2, 1, 64);
  const Inputs inputs{by_token.q.transpose(1, 2), by_token.k.transpose(1, 2), by_token.v.transpose(1, 2),
                      by_token.dout.transpose(1, 2)};
  const double scale = 0.125;
  if (!ops::long_attention_runs(inputs.q, inputs.k, inputs.v, scale)) GTEST_SKIP() << "PyTorch would not choose cuDNN";
  const auto run = [&](const auto& attention) { return test_support::attention_results(inputs, attention); };
  const std::vector<at::Tensor> taken = run([&](const auto& q, const auto& k, const auto& v) {
    return ops::stock_attention(q, k, v, {q.size(2)}, std::nullopt, /*deterministic=*/false);
  });
  const std::vector<at::Tensor> in_blocks =
      run([&](const auto& q, const auto& k, const auto& v) { return ops::long_attention(q, k, v, scale); });
  const std::vector<at::Tensor> in_one_call = run([&](const auto& q, const auto& k, const auto& v) {
    return at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, true, scale, /*enable_gqa=*/true);
  });
  EXPECT_TRUE(at::equal(taken[0], in_blocks[0]));
  for (size_t i = 0; i < taken.size(); ++i) {
    const at::Tensor difference = taken[i].to(at::kFloat) - in_one_call[i].to(at::kFloat);
    EXPECT_LE(difference.norm().item<double>(),
              4 * std::ldexp(1.0, -8) * in_one_call[i].norm(2, at::kFloat).item<double>())
        << i;
  }
}

TEST(NaNCuda, ReachesNoEarlierOutput) {
  NEED_DEVICE(1);
  Inputs inputs = make_inputs(4096, 4, 2, 64);
  constexpr int64_t kToken = 3000;
  for (at::Tensor* x : {&inputs.q, &inputs.k}) x->narrow(1, kToken, 1).fill_(std::nan(""));
  const at::Tensor out = lighthouse_attention(inputs.q, inputs.k, inputs.v, make_options(64));
  EXPECT_FALSE(out.narrow(1, 0, kToken).isnan().any().item<bool>());
  EXPECT_TRUE(out.isnan().any().item<bool>());
}

TEST(GivenSelectionCuda, IsCheckedWithoutACrash) {
  NEED_DEVICE(1);
  const Inputs inputs = make_inputs(1024, 2, 2, 64);
  AttentionOptions options = make_options(16);
  const at::Tensor selection = selection_of(inputs, options.selection_config);
  for (const int32_t wrong : {-1, 1 << 30, selection[0][1][4].item<int32_t>()}) {
    options.selection = selection.clone();
    options.selection->select(2, 5).fill_(wrong);
    EXPECT_THROW(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), c10::ValueError) << wrong;
  }
  options.selection = selection.flip(2);
  EXPECT_THROW(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), c10::ValueError);
  options.check_selection = false;
  EXPECT_NO_THROW(lighthouse_attention(inputs.q, inputs.k, inputs.v, options));
  options.check_selection = true;
  options.selection = selection;
  EXPECT_NO_THROW(lighthouse_attention(inputs.q, inputs.k, inputs.v, options));
}

/// x as a view of a wider tensor: rows that do not start at multiples of 16 bytes.
at::Tensor sliced(const at::Tensor& x) {
  const at::Tensor wide = at::randn({x.size(0), x.size(1), x.size(2), x.size(3) + 1}, x.options());
  return wide.narrow(3, 1, x.size(3)).copy_(x);
}

TEST(StockAttentionCuda, TakesHeadsOfAnyStrideTypeAndGrouping) {
  NEED_DEVICE(1);
  struct Heads {
    int64_t num_heads, num_kv_heads, head_dim;
  };
  for (const Heads& heads : {Heads{2, 1, 32}, Heads{1, 1, 32}, Heads{4, 2, 33}, Heads{2, 1, 20}, Heads{2, 1, 264}}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << heads.num_heads << '/' << heads.num_kv_heads << " heads of " << heads.head_dim
                                      << ' ' << dtype);
      const Inputs whole = make_inputs(549, heads.num_heads, heads.num_kv_heads, heads.head_dim, dtype);
      const Inputs parts{sliced(whole.q), sliced(whole.k), sliced(whole.v), sliced(whole.dout)};
      AttentionOptions options = make_options(183, 4, 8);
      options.score_config.scorer = Scorer::kDilated;
      const std::vector<int64_t> documents{0, 300, 301, 549};
      for (const bool packed : {false, true}) {
        if (packed) options.cu_seqlens = documents;
        options.selection = std::nullopt;
        EXPECT_NO_THROW(results_of(parts, options));
        const auto [s_qk, s_kq] = token_scores(whole.q, whole.k, whole.v, {}, std::nullopt, options.cu_seqlens);
        options.selection = select(s_qk, s_kq, options.selection_config, options.cu_seqlens);
        const bool is_16_bit = dtype == at::kBFloat16 || dtype == at::kHalf;
        for (const bool deterministic : {false, is_16_bit}) {
          options.deterministic = deterministic;
          const std::vector<at::Tensor> expected = results_of(whole, options);
          const std::vector<at::Tensor> results = results_of(parts, options);
          for (size_t i = 0; i < results.size(); ++i) {
            const double bound = 64 *
                                 (dtype == at::kDouble  ? 1e-15
                                  : dtype == at::kFloat ? 1.2e-7
                                                        : 7.9e-3) *
                                 expected[i].abs().max().item<double>();
            EXPECT_LE((results[i] - expected[i]).abs().max().item<double>(), bound) << i;
          }
        }
        options.deterministic = false;
        const auto by_row = [](const at::Tensor& x) { return x.transpose(1, 2); };
        const at::Tensor q = by_row(parts.q).requires_grad_();
        const at::Tensor out = causal_attention(q, by_row(parts.k), by_row(parts.v), std::nullopt, options.cu_seqlens);
        EXPECT_NO_THROW(torch::autograd::grad({out}, {q}, {by_row(parts.dout)}));
      }
    }
  }
}

}  // namespace
}  // namespace lighthouse
