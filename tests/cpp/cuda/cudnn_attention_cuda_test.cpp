// cuDNN's repeatable attention: slices, layouts, graphs, and where it does not run.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>

#include "ops/cudnn_attention.h"
#include "support/attention_results.h"
#include "support/gpu_gate.h"

namespace lighthouse::ops {
namespace {

using test_support::attention_results;

struct Case {
  int64_t batch, num_heads, num_kv_heads, seq_len, head_dim;
  at::ScalarType dtype = at::kBFloat16;
  bool by_token = false;  ///< memory [B, S, H, D] under [B, H, S, D]

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.batch << 'x' << c.num_heads << '/' << c.num_kv_heads << 'x' << c.seq_len << 'x' << c.head_dim << ' '
             << c.dtype << (c.by_token ? " by token" : "");
}

struct Inputs {
  at::Tensor q, k, v, dout;
};

Inputs make_inputs(const Case& c) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(c.dtype);
  const auto make = [&](int64_t heads) {
    return c.by_token ? at::randn({c.batch, c.seq_len, heads, c.head_dim}, options).transpose(1, 2)
                      : at::randn({c.batch, heads, c.seq_len, c.head_dim}, options);
  };
  return {make(c.num_heads), make(c.num_kv_heads), make(c.num_kv_heads), make(c.num_heads)};
}

/// o, dq, dk, dv.
std::vector<at::Tensor> by_cudnn(const Inputs& inputs, const Case& c, const CudnnLimits& limits = {}) {
  return attention_results(
      inputs, [&](const auto& q, const auto& k, const auto& v) { return cudnn_attention(q, k, v, c.scale(), limits); });
}

void expect_equal(const std::vector<at::Tensor>& results, const std::vector<at::Tensor>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(results[i], expected[i])) << "odqdkdv"[i] << i;
}

class CudnnAttentionCuda : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
    inputs_ = make_inputs(GetParam());
    if (!cudnn_attention_runs(inputs_.q, inputs_.k, inputs_.v, GetParam().scale())) {
      GTEST_SKIP() << "cuDNN's repeatable attention does not run here";
    }
  }
  Inputs inputs_;
};

TEST_P(CudnnAttentionCuda, RepeatsItsBits) {
  const std::vector<at::Tensor> first = by_cudnn(inputs_, GetParam());
  for (int repeat = 0; repeat < 20; ++repeat) expect_equal(by_cudnn(inputs_, GetParam()), first);
}

/// Limits that cut the rows into three or four blocks of queries and of keys.
CudnnLimits in_blocks(const Case& c) {
  const auto bytes =
      static_cast<int64_t>(CudnnLimits::score_gradient_bytes(c.seq_len / 3, c.num_heads / c.num_kv_heads));
  return {CudnnLimits().slice_bytes, bytes};
}

TEST_P(CudnnAttentionCuda, BlocksRepeatTheirBits) {
  const CudnnLimits limits = in_blocks(GetParam());
  const std::vector<at::Tensor> first = by_cudnn(inputs_, GetParam(), limits);
  for (int repeat = 0; repeat < 20; ++repeat) expect_equal(by_cudnn(inputs_, GetParam(), limits), first);
}

TEST_P(CudnnAttentionCuda, AgreesWithStockAttentionInDouble) {
  const auto as_double = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const Inputs exact{as_double(inputs_.q), as_double(inputs_.k), as_double(inputs_.v), as_double(inputs_.dout)};
  const bool grouped = GetParam().num_heads != GetParam().num_kv_heads;
  const auto stock = [&](const auto& q, const auto& k, const auto& v) {
    return at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, true, GetParam().scale(), grouped);
  };
  const std::vector<at::Tensor> expected = attention_results(exact, stock);
  // The probabilities, the gradients of the scores, o and the result are rounded to the type, each by at most one part
  // in 2^8 (bf16) or 2^11.
  const double bound = 4 * std::ldexp(1.0, GetParam().dtype == at::kBFloat16 ? -8 : -11);
  for (const CudnnLimits& limits : {CudnnLimits(), in_blocks(GetParam())}) {
    const std::vector<at::Tensor> results = by_cudnn(inputs_, GetParam(), limits);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LE((as_double(results[i]) - expected[i]).norm().item<double>(), bound * expected[i].norm().item<double>())
          << i << ", KV heads of at most " << limits.group_bytes << " bytes";
    }
  }
}

TEST_P(CudnnAttentionCuda, SlicesGiveTheSameBits) {
  const Case& c = GetParam();
  const std::vector<at::Tensor> whole = by_cudnn(inputs_, c);
  const int64_t group_bytes = c.num_heads / c.num_kv_heads * c.seq_len * c.seq_len * 2;
  for (const int64_t slice_bytes : {int64_t{1}, group_bytes * 5 / 2}) {  // one KV head, two or so
    expect_equal(by_cudnn(inputs_, c, {slice_bytes, CudnnLimits().group_bytes}), whole);
  }
}

TEST_P(CudnnAttentionCuda, TakesAnyStridesOfTheGradient) {
  inputs_.dout = at::ones({}, inputs_.q.options()).expand(inputs_.q.sizes());
  const std::vector<at::Tensor> expanded = by_cudnn(inputs_, GetParam());
  inputs_.dout = inputs_.dout.contiguous();
  expect_equal(by_cudnn(inputs_, GetParam()), expanded);
}

TEST_P(CudnnAttentionCuda, IsCapturedInAGraph) {
  const c10::cuda::CUDAStreamGuard on_a_side_stream(c10::cuda::getStreamFromPool());
  c10::cuda::device_synchronize();
  for (const int64_t group_bytes : {CudnnLimits().group_bytes, in_blocks(GetParam()).group_bytes}) {
    const CudnnLimits limits{/*slice_bytes=*/1, group_bytes};
    const std::vector<at::Tensor> expected = by_cudnn(inputs_, GetParam(), limits);  // builds the plans
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const std::vector<at::Tensor> results = by_cudnn(inputs_, GetParam(), limits);
    graph.capture_end();
    for (int repeat = 0; repeat < 3; ++repeat) {
      for (const at::Tensor& x : results) x.fill_(std::nan(""));
      graph.replay();
      expect_equal(results, expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudnnAttentionCuda,
                         ::testing::Values(Case{1, 8, 8, 2048, 128}, Case{2, 8, 4, 2048, 128}, Case{2, 4, 4, 1024, 64},
                                           Case{1, 8, 2, 1001, 64},  // log-sum-exps at no multiple of 16 bytes
                                           Case{2, 8, 4, 1001, 128, at::kHalf, true}, Case{1, 2, 1, 130, 72}));

// More rows than one call affords by default, and than 16 bits count.
TEST(CudnnAttentionRulesCuda, LongRowsAgreeWithStockAttention) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const Case c{1, 2, 1, 70001, 64};
  const Inputs inputs = make_inputs(c);
  if (!cudnn_attention_runs(inputs.q, inputs.k, inputs.v, c.scale())) {
    GTEST_SKIP() << "cuDNN's repeatable attention does not run here";
  }
  const std::vector<at::Tensor> results = by_cudnn(inputs, c);
  expect_equal(by_cudnn(inputs, c), results);
  const std::vector<at::Tensor> stock = attention_results(inputs, [&](const auto& q, const auto& k, const auto& v) {
    return at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, true, c.scale(), /*enable_gqa=*/true);
  });
  for (size_t i = 0; i < stock.size(); ++i) {
    EXPECT_LE((results[i].to(at::kFloat) - stock[i].to(at::kFloat)).norm().item<double>(),
              4 * std::ldexp(1.0, -8) * stock[i].norm(2, at::kFloat).item<double>())
        << i;
  }
}

TEST(CudnnAttentionRulesCuda, RunsOnlyByTheRule) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const Case good{1, 4, 2, 512, 64};
  const auto runs = [](const Case& c, const CudnnLimits& limits = {}) {
    const Inputs inputs = make_inputs(c);
    return cudnn_attention_runs(inputs.q, inputs.k, inputs.v, c.scale(), limits);
  };
  if (!runs(good)) GTEST_SKIP() << "cuDNN's repeatable attention does not run here";
  EXPECT_FALSE(runs({1, 4, 2, 512, 64, at::kFloat}));
  EXPECT_FALSE(runs({1, 4, 2, 512, 60}));
  EXPECT_FALSE(runs({1, 4, 2, 512, 136}));
  EXPECT_FALSE(runs({1, 4, 2, 1, 64}));
  EXPECT_TRUE(runs(good, {/*slice_bytes=*/1, /*group_bytes=*/1}));
  const Inputs inputs = make_inputs(good);
  const at::Tensor broadcast = inputs.k.narrow(1, 0, 1).expand(inputs.k.sizes());
  EXPECT_FALSE(cudnn_attention_runs(inputs.q, broadcast, inputs.v, good.scale()));
  at::globalContext().setSDPUseCuDNN(false);
  EXPECT_FALSE(runs(good));
  at::globalContext().setSDPUseCuDNN(true);
}

}  // namespace
}  // namespace lighthouse::ops
