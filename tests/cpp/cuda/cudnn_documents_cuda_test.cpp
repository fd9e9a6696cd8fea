// cuDNN's attention of packed documents against stock attention of each in fp64: lengths, layouts, graphs, and where it
// does not run, and that stock attention takes it for long documents.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <ostream>

#include "ops/cudnn_documents.h"
#include "ops/inner_attention.h"
#include "support/attention_results.h"
#include "support/gpu_gate.h"

namespace lighthouse::ops::documents {
namespace {

using test_support::attention_results;

enum class Memory { kByToken, kPacked, kByHead };  ///< [S, H, D]; [S, H + 2 H_kv, D] with q, k and v in it; [H, S, D]

struct Case {
  int64_t num_heads, num_kv_heads, head_dim;
  Memory memory;
  std::vector<int64_t> num_rows;
  at::ScalarType dtype = at::kBFloat16;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
  int64_t seq_len() const { return std::accumulate(num_rows.begin(), num_rows.end(), int64_t{0}); }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.num_heads << '/' << c.num_kv_heads << "x" << c.head_dim << ' ' << c.dtype << ", memory "
             << static_cast<int>(c.memory) << ", " << c.num_rows.size() << " documents in " << c.seq_len() << " rows";
}

struct Inputs {
  at::Tensor q, k, v, dout;
};

Inputs make_inputs(const Case& c) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(c.dtype);
  const auto make = [&](int64_t heads) {
    return c.memory == Memory::kByHead ? at::randn({1, heads, c.seq_len(), c.head_dim}, options)
                                       : at::randn({1, c.seq_len(), heads, c.head_dim}, options).transpose(1, 2);
  };
  const at::Tensor dout = make(c.num_heads);
  if (c.memory != Memory::kPacked) return {make(c.num_heads), make(c.num_kv_heads), make(c.num_kv_heads), dout};
  const std::vector<at::Tensor> parts =
      make(c.num_heads + 2 * c.num_kv_heads).split_with_sizes({c.num_heads, c.num_kv_heads, c.num_kv_heads}, 1);
  return {parts[0], parts[1], parts[2], dout};
}

/// o, dq, dk, dv.
std::vector<at::Tensor> by_cudnn(const Inputs& inputs, const Case& c) {
  return attention_results(inputs, [&](const auto& q, const auto& k, const auto& v) {
    return cudnn_documents(q, k, v, c.num_rows, c.scale());
  });
}

bool runs(const Case& c) {
  const Inputs inputs = make_inputs(c);
  return cudnn_documents_run(inputs.q, inputs.k, c.num_rows, c.scale());
}

class CudnnDocumentsCuda : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
    // Memory that comes back from the allocator holds no numbers, so that whatever is read past an end shows.
    at::full({1 << 28}, std::nan(""), at::TensorOptions().device(at::kCUDA).dtype(at::kFloat));
    inputs_ = make_inputs(GetParam());
    if (!cudnn_documents_run(inputs_.q, inputs_.k, GetParam().num_rows, GetParam().scale())) {
      GTEST_SKIP() << "cuDNN's attention of documents does not run here";
    }
  }
  Inputs inputs_;
};

TEST_P(CudnnDocumentsCuda, AgreesWithStockAttentionInDouble) {
  const auto as_double = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const Inputs exact{as_double(inputs_.q), as_double(inputs_.k), as_double(inputs_.v), as_double(inputs_.dout)};
  const std::vector<at::Tensor> expected = attention_results(exact, [&](const auto& q, const auto& k, const auto& v) {
    return stock_attention(q, k, v, GetParam().num_rows, GetParam().scale(), /*deterministic=*/false);
  });
  const std::vector<at::Tensor> results = by_cudnn(inputs_, GetParam());
  // As in the tests of one document; by document, so that a short one counts as much as a long one.
  const double bound = 4 * std::ldexp(1.0, GetParam().dtype == at::kBFloat16 ? -8 : -11);
  for (size_t i = 0; i < expected.size(); ++i) {
    int64_t begin = 0;
    for (const int64_t rows : GetParam().num_rows) {
      const auto of = [&](const at::Tensor& x) { return as_double(x.narrow(2, begin, rows)); };
      const at::Tensor error = (of(results[i]) - of(expected[i])).norm();
      // dq and dk of one row are zero: the only key has all of the probability.
      EXPECT_LE(error.item<double>(), bound * std::max(of(expected[i]).norm().item<double>(), rows == 1 ? 1.0 : 0.0))
          << std::array{"o", "dq", "dk", "dv"}[i] << ", " << rows << " rows from " << begin << " on";
      begin += rows;
    }
  }
}

TEST_P(CudnnDocumentsCuda, ForwardRepeatsItsBits) {
  const auto forward = [&] {
    return cudnn_documents(inputs_.q, inputs_.k, inputs_.v, GetParam().num_rows, GetParam().scale());
  };
  const at::Tensor first = forward();
  for (int repeat = 0; repeat < 20; ++repeat) EXPECT_TRUE(at::equal(forward(), first));
}

/// So that ranks that have some heads each score as one device does.
TEST_P(CudnnDocumentsCuda, ForwardOfAHeadDoesNotHangOnTheOthers) {
  const int64_t heads = GetParam().num_heads / GetParam().num_kv_heads;
  const at::Tensor all = cudnn_documents(inputs_.q, inputs_.k, inputs_.v, GetParam().num_rows, GetParam().scale());
  const auto first = [](const at::Tensor& x, int64_t count) { return x.narrow(1, 0, count); };
  const at::Tensor of_first = cudnn_documents(first(inputs_.q, heads), first(inputs_.k, 1), first(inputs_.v, 1),
                                              GetParam().num_rows, GetParam().scale());
  EXPECT_TRUE(at::equal(of_first, first(all, heads)));
}

TEST_P(CudnnDocumentsCuda, TakesAnyStridesOfTheGradient) {
  inputs_.dout = at::ones({}, inputs_.q.options()).expand(inputs_.q.sizes());
  const std::vector<at::Tensor> expanded = by_cudnn(inputs_, GetParam());
  inputs_.dout = inputs_.dout.contiguous();
  const std::vector<at::Tensor> contiguous = by_cudnn(inputs_, GetParam());
  for (size_t i = 0; i < 4; ++i) {  // dq is summed in varying order
    EXPECT_LE((expanded[i] - contiguous[i]).norm().item<double>(), 0.01 * contiguous[i].norm().item<double>()) << i;
  }
}

TEST_P(CudnnDocumentsCuda, IsCapturedInAGraph) {
  const c10::cuda::CUDAStreamGuard on_a_side_stream(c10::cuda::getStreamFromPool());
  c10::cuda::device_synchronize();
  const std::vector<at::Tensor> expected = by_cudnn(inputs_, GetParam());  // builds the plans
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const std::vector<at::Tensor> results = by_cudnn(inputs_, GetParam());
  graph.capture_end();
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (const at::Tensor& x : results) x.fill_(std::nan(""));
    graph.replay();
    EXPECT_TRUE(at::equal(results[0], expected[0]));
    for (size_t i = 1; i < 4; ++i) {
      EXPECT_LE((results[i] - expected[i]).norm().item<double>(), 0.01 * expected[i].norm().item<double>()) << i;
    }
  }
}

std::vector<int64_t> mixed() { return {1, 3, 0, 127, 128, 129, 512, 0, 1000, 64, 2, 1}; }

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudnnDocumentsCuda,
    ::testing::Values(Case{8, 8, 128, Memory::kByToken, mixed()}, Case{8, 8, 128, Memory::kByHead, mixed()},
                      Case{8, 8, 128, Memory::kPacked, mixed()}, Case{8, 2, 128, Memory::kByToken, mixed()},
                      Case{8, 2, 64, Memory::kPacked, mixed(), at::kHalf},
                      Case{3, 3, 64, Memory::kByHead, mixed(), at::kHalf}, Case{1, 1, 80, Memory::kByHead, {5, 300}},
                      Case{2, 1, 16, Memory::kByToken, std::vector<int64_t>(300, 7)},
                      Case{4, 2, 32, Memory::kByHead, std::vector<int64_t>(300, 7)},
                      Case{2, 2, 128, Memory::kByToken, {4000, 1, 2000}}));

TEST(CudnnDocumentsRulesCuda, RunsOnlyByTheRule) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const Case good{4, 2, 64, Memory::kByToken, {256, 256}};
  if (!runs(good)) GTEST_SKIP() << "cuDNN's attention of documents does not run here";
  EXPECT_FALSE(runs({4, 2, 64, Memory::kByToken, {256, 256}, at::kFloat}));
  EXPECT_FALSE(runs({4, 2, 72, Memory::kByToken, {256, 256}}));
  EXPECT_FALSE(runs({4, 2, 144, Memory::kByToken, {256, 256}}));
  at::globalContext().setSDPUseCuDNN(false);
  EXPECT_FALSE(runs(good));
  at::globalContext().setSDPUseCuDNN(true);
}

/// Bits of one kernel repeat, and those of two differ.
TEST(CudnnDocumentsRulesCuda, StockAttentionTakesItForLongDocuments) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const Case of_long{8, 8, 128, Memory::kByToken, {4096, 4096}}, of_short{8, 8, 128, Memory::kByToken, {512, 512}};
  if (!runs(of_long)) GTEST_SKIP() << "cuDNN's attention of documents does not run here";
  for (const Case& c : {of_long, of_short}) {
    const Inputs inputs = make_inputs(c);
    const auto stock = [&](bool deterministic) {
      return stock_attention(inputs.q, inputs.k, inputs.v, c.num_rows, std::nullopt, deterministic);
    };
    const at::Tensor cudnn = cudnn_documents(inputs.q, inputs.k, inputs.v, c.num_rows, c.scale());
    EXPECT_EQ(at::equal(stock(/*deterministic=*/false), cudnn), c.num_rows == of_long.num_rows) << c;
    EXPECT_FALSE(at::equal(stock(/*deterministic=*/true), cudnn)) << c;
    at::globalContext().setSDPUseCuDNN(false);
    EXPECT_FALSE(at::equal(stock(/*deterministic=*/false), cudnn)) << c;
    at::globalContext().setSDPUseCuDNN(true);
  }
}

}  // namespace
}  // namespace lighthouse::ops::documents
