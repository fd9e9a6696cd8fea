// Projection, RoPE, selection and gather as one function, against the functions that it puts together. On the CPU, and
// with LIGHTHOUSE_TEST_DEVICE=cuda there.
#include "model/qkv_projection.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "cpp/model/model_support.h"
#include "model/layer.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

constexpr int64_t kDim = 48;
constexpr double kEps = 1e-5;

struct Case {
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
  std::vector<int64_t> cu_seqlens;
  bool rope = true;
  bool bias = false;
};

/// With kernels on CUDA that turn heads (the first three), and without.
const Case kCases[] = {{2, 203, 8, 8, 128, {}},
                       {1, 333, 16, 8, 128, {0, 100, 101, 333}},
                       {1, 150, 32, 16, 64, {}},
                       {2, 90, 4, 2, 8, {}},
                       {1, 130, 8, 4, 128, {}},
                       {2, 203, 8, 8, 128, {}, /*rope=*/false},
                       {1, 333, 16, 8, 128, {0, 100, 101, 333}, true, /*bias=*/true},
                       {2, 90, 4, 2, 8, {}, false, true}};

class SelectedProjectionTest : public testing::TestWithParam<std::tuple<Case, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, SelectedProjectionTest,
                         testing::Combine(testing::ValuesIn(kCases),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kDouble)));

SelectionConfig selection() {
  SelectionConfig config;
  config.topk = 4;
  config.tile_topk = 2;
  return config;
}

at::Tensor random(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.mutable_data_ptr<double>()[i] = random_normal(seed, static_cast<uint64_t>(i));
  }
  return tensor;
}

Rotation rotation_of(const Case& c, at::Device device) {
  if (!c.rope) return {};
  const ModelConfig model{.head_dim = c.head_dim, .rope_theta = 1000.0};
  const RopeFrequencies frequencies = rope_frequencies(model, c.seq_len, device);
  return c.cu_seqlens.empty() ? make_rotation(0, c.seq_len, frequencies) : make_rotation(c.cu_seqlens, frequencies);
}

/// A layer's first part and what flows into it, from both sides.
struct Inputs {
  Rotation rotation;
  LayerWeights weights;
  LayerMatrices compute;
  at::Tensor in, update, dx;
  std::vector<at::Tensor> leaves;

  /// `rounding`: the dtype whose values all tensors have.
  Inputs(const Case& c, at::ScalarType dtype, at::Device device, at::ScalarType rounding)
      : rotation(rotation_of(c, device)) {
    const auto leaf = [&](const at::Tensor& values, at::ScalarType type) {
      leaves.push_back(values.to(rounding).to(device, type).set_requires_grad(true));
      return leaves.back();
    };
    const at::Tensor qkv = random({(c.num_heads + 2 * c.num_kv_heads) * c.head_dim, kDim}, 1) * 0.2;
    const int64_t q_channels = c.num_heads * c.head_dim;
    const int64_t kv_channels = c.num_kv_heads * c.head_dim;
    const at::ScalarType parameter = dtype == at::kDouble ? at::kDouble : at::kFloat;
    weights.input_norm = leaf(random({kDim}, 2) * 0.1 + 1, parameter);
    weights.q_proj = leaf(qkv.narrow(0, 0, q_channels), parameter);
    weights.k_proj = leaf(qkv.narrow(0, q_channels, kv_channels), parameter);
    weights.v_proj = leaf(qkv.narrow(0, q_channels + kv_channels, kv_channels), parameter);
    if (c.bias) {
      weights.q_bias = leaf(random({q_channels}, 20), parameter);
      weights.k_bias = leaf(random({kv_channels}, 21), parameter);
      weights.v_bias = leaf(random({kv_channels}, 22), parameter);
    }
    compute.qkv_proj = at::cat({weights.q_proj, weights.k_proj, weights.v_proj}).detach().to(dtype);
    in = leaf(random({c.batch, c.seq_len, kDim}, 3), dtype);
    update = leaf(random({c.batch, c.seq_len, kDim}, 4), dtype);
    dx = random({c.batch, c.seq_len, kDim}, 5).to(rounding).to(device, dtype);
  }

  /// Gradients of all leaves, given those of x and of the rows.
  std::vector<at::Tensor> gradients(const at::Tensor& x, const ops::GatheredRows& rows) const {
    at::Tensor sum = (x * dx).sum(at::kDouble);
    uint64_t seed = 6;
    for (const at::Tensor& each : {rows.q, rows.k, rows.v}) {
      sum = sum + (each * random(each.sizes(), seed++).to(at::kBFloat16).to(each.device(), each.scalar_type()))
                      .sum(at::kDouble);
    }
    sum.backward();
    std::vector<at::Tensor> all;
    for (const at::Tensor& each : leaves) all.push_back(each.grad());
    return all;
  }
};

struct Results {
  ops::GatheredRows rows;
  std::vector<at::Tensor> gradients;
};

calls::SharedPlan plan_of(const Case& c) {
  return calls::share_plan("test", selection(), c.seq_len, c.batch, calls::optional_offsets(c.cu_seqlens));
}

Results in_one(const Case& c, at::ScalarType dtype) {
  const Inputs inputs(c, dtype, test_device(), dtype);
  const auto [x, rows] = selected_projection({inputs.in, inputs.update}, inputs.weights, inputs.compute, kEps,
                                             c.head_dim, inputs.rotation, plan_of(c));
  return {rows, inputs.gradients(x, rows)};
}

/// By qkv_projection and gather, with a selection that was made elsewhere or, without one, by the norms.
Results in_parts(const Case& c, const Inputs& inputs, const ops::GatheredRows* chosen = nullptr) {
  const auto [x, heads] =
      qkv_projection({inputs.in, inputs.update}, inputs.weights, inputs.compute, kEps, c.head_dim, inputs.rotation);
  ops::GatheredRows rows;
  if (chosen == nullptr) {
    rows = ops::gather_by_norm(heads.q, heads.k, heads.v, plan_of(c));
  } else {
    const at::Device device = heads.q.device();
    const ops::Gathering& by = chosen->gathering;
    rows.gathering = {by.plan, by.selection.to(device), by.slots.to(device)};
    static_cast<Rows&>(rows) = ops::gather_rows(heads.q, heads.k, heads.v, rows.gathering);
  }
  return {rows, inputs.gradients(x, rows)};
}

TEST_P(SelectedProjectionTest, RowsAreThoseOfTheParts) {
  const auto& [c, dtype] = GetParam();
  const Results one = in_one(c, dtype);
  const Results parts = in_parts(c, Inputs(c, dtype, test_device(), dtype));
  const auto expect_same = [](const at::Tensor& a, const at::Tensor& b) { EXPECT_TRUE(same_bits(a.cpu(), b.cpu())); };
  expect_same(one.rows.q, parts.rows.q);
  expect_same(one.rows.k, parts.rows.k);
  expect_same(one.rows.v, parts.rows.v);
  expect_same(one.rows.gathering.selection, parts.rows.gathering.selection);
  expect_same(one.rows.gathering.slots, parts.rows.gathering.slots);
  ASSERT_EQ(one.gradients.size(), parts.gradients.size());
  if (!test_device().is_cpu()) return;  // kernels there round once less
  for (size_t i = 0; i < one.gradients.size(); ++i) expect_same(one.gradients[i], parts.gradients[i]);
}

TEST_P(SelectedProjectionTest, GradientsErrAtMostTwiceTheParts) {
  const auto& [c, dtype] = GetParam();
  const Results one = in_one(c, dtype);
  const Results parts = in_parts(c, Inputs(c, dtype, test_device(), dtype));
  const Results exact = in_parts(c, Inputs(c, at::kDouble, at::kCPU, dtype), &one.rows);
  ASSERT_EQ(one.gradients.size(), exact.gradients.size());
  for (size_t i = 0; i < one.gradients.size(); ++i) {
    const auto error = [&](const Results& results) {
      return max_abs(results.gradients[i].cpu().to(at::kDouble) - exact.gradients[i]);
    };
    const double unit = dtype == at::kBFloat16 ? 0x1p-8 : 0x1p-23;
    EXPECT_LE(error(one), 2 * error(parts) + unit * max_abs(exact.gradients[i])) << i;
  }
}

}  // namespace
}  // namespace lighthouse
