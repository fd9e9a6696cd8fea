// The CUDA scorer `gla` against the CPU stage in fp64.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpp/cuda/device_array.h"
#include "lighthouse/cuda_stages.h"
#include "stages/gla_segments.h"
#include "support/rounding.h"
#include "support/strided_array.h"

namespace lighthouse {
namespace {

using cuda_test::DeviceArray;
using cuda_test::have_device;
using reference::Tensor;
using test_support::kOrders;
using test_support::Order;
using test_support::round_to;
using test_support::StridedArray;

/// A [B, N, H, D] argument on the device.
class DeviceTensor {
 public:
  DeviceTensor(DType dtype, Order order, const Tensor& values) : host_(dtype, order, values), bytes_(host_.bytes()) {}
  ConstView view() const {
    ConstView view = host_.const_view();
    view.data = bytes_.get() + (static_cast<const unsigned char*>(view.data) - host_.bytes().data());
    return view;
  }

 private:
  StridedArray host_;
  DeviceArray<unsigned char> bytes_;
};

struct Case {
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim, dilation;
  std::vector<int64_t> cu_seqlens;
  DType dtype;
  Order order;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "B=" << c.batch << " N=" << c.seq_len << " H=" << c.num_heads << "/" << c.num_kv_heads << " D=" << c.head_dim
       << " dilation=" << c.dilation << " dtype=" << static_cast<int>(c.dtype) << " order=" << static_cast<int>(c.order)
       << " documents=" << testing::PrintToString(c.cu_seqlens);
}

/// Values are numbers of the dtype.
struct Input {
  Tensor q, k, v;           // [B, N, H or H_kv, D]
  std::vector<float> gate;  // [B, N, H]
};

Input random_input(std::mt19937_64& random, const Case& c) {
  std::normal_distribution<double> normal;
  const auto tensor = [&](int64_t heads) {
    Tensor x(c.batch, c.seq_len, heads, c.head_dim);
    for (double& value : x.values) value = round_to(c.dtype, normal(random));
    return x;
  };
  Input input{tensor(c.num_heads), tensor(c.num_kv_heads), tensor(c.num_kv_heads), {}};
  input.gate.resize(static_cast<size_t>(c.batch * c.seq_len * c.num_heads));
  const int style = static_cast<int>(random() % 3);  // as in training, no decay, wild
  for (float& gate : input.gate) {
    gate = style == 1 ? 0.0f : static_cast<float>(-std::log1p(std::exp(-normal(random))) / 16);
    if (style == 2 && random() % 8 == 0) {
      const float wild[] = {-std::numeric_limits<float>::infinity(), -1e30f, -100.0f, -3.0f, 0.0f, -0.0f};
      gate = wild[random() % 6];
    }
  }
  return input;
}

struct ScorePair {
  std::vector<float> s_qk, s_kq;  // [B, H_kv, N]
};

GlaScoreParams make_params(const Case& c, DType dtype, const ConstView& q, const ConstView& k, const ConstView& v,
                           const float* gate, float* s_qk, float* s_kq) {
  return {q,           k,           v,
          dtype,       gate,        c.seq_len * c.num_heads,
          c.num_heads, 1,           c.batch,
          c.seq_len,   c.num_heads, c.num_kv_heads,
          c.head_dim,  c.dilation,  c.cu_seqlens,
          s_qk,        s_kq};
}

ScorePair run_on_host(const Case& c, const Input& input, DType dtype) {
  const StridedArray q(dtype, Order::kTokensFirst, input.q), k(dtype, Order::kTokensFirst, input.k),
      v(dtype, Order::kTokensFirst, input.v);
  const auto size = static_cast<size_t>(c.batch * c.num_kv_heads * c.seq_len);
  ScorePair scores{std::vector<float>(size), std::vector<float>(size)};
  gla_scores(make_params(c, dtype, q.const_view(), k.const_view(), v.const_view(), input.gate.data(),
                         scores.s_qk.data(), scores.s_kq.data()),
             serial_for);
  return scores;
}

/// Records what `launch` puts on a stream in a graph and runs that once.
void run_as_graph(const std::function<void(CudaStream)>& launch) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  LIGHTHOUSE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  LIGHTHOUSE_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  launch(stream);
  LIGHTHOUSE_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  LIGHTHOUSE_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  LIGHTHOUSE_CUDA_CHECK(cudaGraphLaunch(executable, stream));
  LIGHTHOUSE_CUDA_CHECK(cudaStreamSynchronize(stream));
  LIGHTHOUSE_CUDA_CHECK(cudaGraphExecDestroy(executable));
  LIGHTHOUSE_CUDA_CHECK(cudaGraphDestroy(graph));
  LIGHTHOUSE_CUDA_CHECK(cudaStreamDestroy(stream));
}

ScorePair run_on_device(const Case& c, const Input& input, bool as_graph = false) {
  const DeviceTensor q(c.dtype, c.order, input.q), k(c.dtype, c.order, input.k), v(c.dtype, c.order, input.v);
  const DeviceArray<float> gate(input.gate);
  const auto size = static_cast<size_t>(c.batch * c.num_kv_heads * c.seq_len);
  const DeviceArray<float> s_qk(size), s_kq(size);
  const DeviceArray<int32_t> bounds(std::vector<int32_t>(c.cu_seqlens.begin(), c.cu_seqlens.end()));
  const DeviceArray<float> workspace(
      static_cast<size_t>(gla_workspace_elements(c.batch, c.seq_len, c.num_heads, c.head_dim, c.dilation, c.dtype)));
  const GlaScoreParams params =
      make_params(c, c.dtype, q.view(), k.view(), v.view(), gate.get(), s_qk.get(), s_kq.get());
  const auto launch = [&](CudaStream stream) { gla_scores(params, bounds.get(), workspace.get(), stream); };
  LIGHTHOUSE_CUDA_CHECK(cudaDeviceSynchronize());  // fills of the default stream, before another stream reads
  as_graph ? run_as_graph(launch) : launch(nullptr);
  LIGHTHOUSE_CUDA_CHECK(cudaDeviceSynchronize());
  return {s_qk.host(), s_kq.host()};
}

/// Norms of one head over one chain as stock chunked operators compute them in a 16-bit type: chunks of 64, fp32 (here
/// fp64) sums, and every tensor between two products, the state and the output among them, rounded.
class StockChain {
 public:
  StockChain(DType dtype, int64_t channels) : dtype_(dtype), dim_(static_cast<size_t>(channels)), state_(dim_ * dim_) {}

  /// Rows of up to 64 tokens; norms gets their outputs' norms.
  void run_chunk(const std::vector<const double*>& query, const std::vector<const double*>& key,
                 const std::vector<const double*>& value, const std::vector<double>& gate, double* norms) {
    const size_t count = query.size();
    std::vector<double> rounded_state(state_.size());
    for (size_t i = 0; i < state_.size(); ++i) rounded_state[i] = round_to(dtype_, state_[i]);
    for (size_t i = 0; i < count; ++i) {
      std::vector<double> output(dim_);
      for (size_t r = 0; r < dim_; ++r) add(output, query[i][r] * decay(gate, 0, i + 1), &rounded_state[r * dim_]);
      for (size_t j = 0; j <= i; ++j) {
        double product = 0;
        for (size_t r = 0; r < dim_; ++r) product += query[i][r] * key[j][r];
        add(output, round_to(dtype_, product * decay(gate, j + 1, i + 1)), value[j]);
      }
      double square = 0;
      for (const double x : output) square += std::pow(round_to(dtype_, x / std::sqrt(static_cast<double>(dim_))), 2);
      norms[i] = std::sqrt(square);
    }
    for (double& x : state_) x *= decay(gate, 0, count);
    for (size_t j = 0; j < count; ++j) {
      std::vector<double> decayed(dim_);
      for (size_t c = 0; c < dim_; ++c) decayed[c] = round_to(dtype_, value[j][c] * decay(gate, j + 1, count));
      for (size_t r = 0; r < dim_; ++r) {
        for (size_t c = 0; c < dim_; ++c) state_[r * dim_ + c] += key[j][r] * decayed[c];
      }
    }
  }

 private:
  static double decay(const std::vector<double>& gate, size_t begin, size_t end) {
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += gate[i];
    return std::exp(sum);
  }
  static void add(std::vector<double>& sum, double weight, const double* x) {
    for (size_t c = 0; c < sum.size(); ++c) sum[c] += weight * x[c];
  }

  DType dtype_;
  size_t dim_;
  std::vector<double> state_;  // [D, D] by key and value channel
};

/// Scores from StockChain.
ScorePair run_stock(const Case& c, const Input& input) {
  const auto size = static_cast<size_t>(c.batch * c.num_kv_heads * c.seq_len);
  ScorePair scores{std::vector<float>(size, NAN), std::vector<float>(size, NAN)};
  const std::vector<int64_t> bounds = c.cu_seqlens.empty() ? std::vector<int64_t>{0, c.seq_len} : c.cu_seqlens;
  const auto run_chain = [&](int64_t batch, int64_t head, int64_t begin, int64_t end, bool exchanged) {
    const int64_t kv_head = head * c.num_kv_heads / c.num_heads;
    auto& target = exchanged ? scores.s_kq : scores.s_qk;
    StockChain chain(c.dtype, c.head_dim);
    for (int64_t first = begin; first < end; first += kGlaChunk * c.dilation) {
      std::vector<const double*> q, k, v;
      std::vector<double> gate;
      for (int64_t token = first; token < std::min(end, first + kGlaChunk * c.dilation); token += c.dilation) {
        q.push_back(input.q.at(batch, token, head));
        k.push_back(input.k.at(batch, token, kv_head));
        v.push_back(input.v.at(batch, token, kv_head));
        gate.push_back(input.gate[static_cast<size_t>((batch * c.seq_len + token) * c.num_heads + head)]);
      }
      std::vector<double> norms(q.size());
      chain.run_chunk(exchanged ? k : q, exchanged ? q : k, v, gate, norms.data());
      for (size_t i = 0; i < norms.size(); ++i) {
        float& score =
            target[static_cast<size_t>((batch * c.num_kv_heads + kv_head) * c.seq_len + first) + i * c.dilation];
        score = std::fmax(score, static_cast<float>(norms[i]));
      }
    }
  };
  for (int64_t batch = 0; batch < c.batch; ++batch) {
    for (int64_t head = 0; head < c.num_heads; ++head) {
      for (size_t document = 0; document + 1 < bounds.size(); ++document) {
        for (int64_t residue = 0; residue < c.dilation; ++residue) {
          for (const bool exchanged : {false, true}) {
            run_chain(batch, head, bounds[document] + residue, bounds[document + 1], exchanged);
          }
        }
      }
    }
  }
  return scores;
}

double norm_of_difference(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i]) - y[i], 2);
  return std::sqrt(sum);
}

/// The error may be twice that of a stock implementation in the same type: chunked in 16-bit types, the CPU stage in
/// fp32 and fp64. Beside it stands what our own fp32 parts cost: 2^x to 2 ulp, gate sums of up to 64 terms, squares
/// and sums of squares, each good for a few 2^-24 of a score.
void expect_close(const std::vector<float>& actual, const std::vector<float>& exact, const std::vector<float>& stock) {
  const std::vector<float> zeros(exact.size());
  const double bound = 2 * norm_of_difference(stock, exact) + 32 * 0x1p-24 * norm_of_difference(exact, zeros);
  const double error = norm_of_difference(actual, exact);
  size_t worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    if (!(std::abs(actual[i] - exact[i]) <= std::abs(actual[worst] - exact[worst]))) worst = i;
  }
  EXPECT_LE(error, bound) << "worst at " << worst << ": " << actual[worst] << ", not " << exact[worst];
}

void expect_close_to_cpu(const Case& c, const Input& input) {
  SCOPED_TRACE(testing::PrintToString(c));
  const ScorePair exact = run_on_host(c, input, DType::kFloat64);
  const bool narrow = c.dtype == DType::kBFloat16 || c.dtype == DType::kFloat16;
  const ScorePair stock = narrow ? run_stock(c, input) : run_on_host(c, input, c.dtype);
  const ScorePair actual = run_on_device(c, input);
  expect_close(actual.s_qk, exact.s_qk, stock.s_qk);
  expect_close(actual.s_kq, exact.s_kq, stock.s_kq);
}

constexpr DType kDTypes[] = {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kFloat64};

/// `max_work` bounds tokens x heads x D^2 so that the CPU's part stays short.
Case random_case(std::mt19937_64& random, DType dtype) {
  const auto up_to = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<uint64_t>(limit)) + 1; };
  Case c{};
  c.dtype = dtype;
  c.order = kOrders[random() % 4];
  if (random() % 2) c.order = Order::kTokensFirst;
  const int64_t dims[] = {64, 128, 8, 40, 80, 96, 64, 128, 20, 7, 192, 256, 33};
  c.head_dim = dims[random() % 13];
  c.dilation = up_to(5);
  c.num_kv_heads = up_to(2);
  c.num_heads = c.num_kv_heads * up_to(2);
  c.batch = up_to(2);
  // Around the ends of a sub-tile, a chunk and a segment, in tokens of a residue class.
  const int64_t edges[] = {1, 15, 16, 17, 63, 64, 65, 128, 255, 256, 257, 320, 512, 513, 600};
  const int64_t class_len = edges[random() % (c.head_dim > 128 ? 9 : 15)];
  c.seq_len = std::max<int64_t>(1, class_len * c.dilation + static_cast<int64_t>(random() % 5) - 2);
  if (random() % 3 == 0) {
    c.batch = 1;
    c.cu_seqlens = {0};
    for (int64_t i = up_to(6); i > 1; --i) c.cu_seqlens.push_back(static_cast<int64_t>(random() % (c.seq_len + 1)));
    c.cu_seqlens.push_back(c.seq_len);
    if (c.cu_seqlens.size() > 2 && random() % 2) c.cu_seqlens.push_back(c.cu_seqlens[1]);  // an empty document
    std::sort(c.cu_seqlens.begin(), c.cu_seqlens.end());
  }
  return c;
}

TEST(GlaCuda, ErrsAtMostTwiceStockAtRandomConfigurations) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(3);
  for (int i = 0; i < 60; ++i) {
    // 16-bit types have the more intricate kernels.
    const Case c = random_case(random, i % 3 == 2 ? kDTypes[random() % 4] : kDTypes[i % 3]);
    expect_close_to_cpu(c, random_input(random, c));
    if (HasFailure()) return;
  }
}

TEST(GlaCuda, HandsStatesFromSegmentToSegment) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(5);
  const std::vector<int64_t> packed = {0, 700, 700, 701, 1900};
  const Case cases[] = {
      {1, 1100, 1, 1, 64, 1, {}, DType::kBFloat16, Order::kTokensFirst},
      {1, 1025, 1, 1, 128, 1, {}, DType::kBFloat16, Order::kHeadsFirst},
      {1, 1900, 2, 1, 128, 2, {}, DType::kFloat16, Order::kInterleaved},
      {1, 1900, 1, 1, 64, 2, packed, DType::kBFloat16, Order::kTokensFirst},
      {1, 1900, 2, 2, 128, 1, packed, DType::kFloat16, Order::kTokensFirst},
      {2, 300, 1, 1, 64, 400, {}, DType::kBFloat16, Order::kTokensFirst},  // every token a class
  };
  for (const Case& c : cases) expect_close_to_cpu(c, random_input(random, c));
}

TEST(GlaCuda, StatesBeyondTheRangeOfFp16DoNotOverflow) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  const Case c{1, 600, 1, 1, 64, 1, {}, DType::kFloat16, Order::kTokensFirst};
  Input input{Tensor(1, 600, 1, 64), Tensor(1, 600, 1, 64), Tensor(1, 600, 1, 64), std::vector<float>(600)};
  for (Tensor* x : {&input.q, &input.k, &input.v}) std::fill(x->values.begin(), x->values.end(), 16.0);
  const ScorePair exact = run_on_host(c, input, DType::kFloat64);  // states up to 600 * 256 = 153,600
  const ScorePair actual = run_on_device(c, input);
  for (size_t token = 0; token < 600; ++token) {
    // Weights, decayed values and scaled states are multiples of powers of two of at most 11 bits' rounding: 2^-11
    // each.
    EXPECT_NEAR(actual.s_qk[token], exact.s_qk[token], exact.s_qk[token] * 3 * 0x1p-11) << token;
  }
}

TEST(GlaCuda, TwoRunsGiveTheSameBitsAndCanBeAGraph) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(13);
  for (int i = 0; i < 12; ++i) {
    const Case c = random_case(random, kDTypes[i % 4]);
    SCOPED_TRACE(testing::PrintToString(c));
    const Input input = random_input(random, c);
    const ScorePair first = run_on_device(c, input), second = run_on_device(c, input, /*as_graph=*/true);
    EXPECT_EQ(0, std::memcmp(first.s_qk.data(), second.s_qk.data(), first.s_qk.size() * sizeof(float)));
    EXPECT_EQ(0, std::memcmp(first.s_kq.data(), second.s_kq.data(), first.s_kq.size() * sizeof(float)));
  }
}

/// A NaN or infinity in a token's q, k, v or gate: scores of earlier tokens, other classes and other documents keep
/// their bits; from the token on, those are NaN that the fp64 stage makes NaN (where it gives a number or an infinity
/// from an infinite input, either may stand).
TEST(GlaCuda, NonFiniteInputsReachNoOtherToken) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(17);
  for (int i = 0; i < 40; ++i) {
    Case c = random_case(random, kDTypes[i % 4]);
    c.seq_len = std::max<int64_t>(c.seq_len, 70 * c.dilation);
    if (!c.cu_seqlens.empty()) c.cu_seqlens.back() = c.seq_len;
    SCOPED_TRACE(testing::PrintToString(c) + " i=" + std::to_string(i));
    Input input = random_input(random, c);
    const ScorePair clean = run_on_device(c, input);
    const auto token = static_cast<int64_t>(random() % static_cast<uint64_t>(c.seq_len));
    const auto channel = static_cast<int64_t>(random() % static_cast<uint64_t>(c.head_dim));
    const bool infinite = i / 4 % 5 == 4;
    const int which = i / 4 % 5 % 4;
    const double bad = infinite ? INFINITY : NAN;
    if (which == 0) input.v.at(0, token, 0)[channel] = bad;
    if (which == 1) input.k.at(0, token, 0)[channel] = bad;
    if (which == 2) input.q.at(0, token, 0)[channel] = bad;
    if (which == 3) input.gate[static_cast<size_t>(token * c.num_heads)] = static_cast<float>(bad);
    const ScorePair exact = run_on_host(c, input, DType::kFloat64);
    const ScorePair actual = run_on_device(c, input);
    int64_t document_end = c.seq_len;
    for (size_t d = c.cu_seqlens.size(); d-- > 0;) {
      if (c.cu_seqlens[d] > token) document_end = c.cu_seqlens[d];
    }
    const auto check = [&](const std::vector<float>& now, const std::vector<float>& before,
                           const std::vector<float>& wanted) {
      for (size_t at = 0; at < now.size(); ++at) {
        const auto j = static_cast<int64_t>(at) % c.seq_len;
        const bool head_of_bad = static_cast<int64_t>(at) < c.seq_len;  // batch 0, KV head 0
        const bool may_change = head_of_bad && j >= token && j < document_end && (j - token) % c.dilation == 0;
        if (!may_change) {
          // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): bits are what is compared
          ASSERT_EQ(0, std::memcmp(&now[at], &before[at], sizeof(float))) << "token " << j << ", bad one " << token;
        } else if (!infinite) {
          ASSERT_EQ(std::isnan(now[at]), std::isnan(wanted[at])) << "token " << j << ", bad one " << token;
        }
      }
    };
    check(actual.s_qk, clean.s_qk, exact.s_qk);
    check(actual.s_kq, clean.s_kq, exact.s_kq);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace lighthouse
