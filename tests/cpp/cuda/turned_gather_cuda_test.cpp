// Gather and its adjoint with RoPE in them: the first gives the bits of turning and then gathering, the second is
// within one rounding of the result in fp64.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "cpp/nn/nn_support.h"
#include "nn/heads.h"
#include "ops/gathering.h"

namespace lighthouse::nn_test {
namespace {

struct Case {
  int64_t batch, seq_len, num_heads, num_kv_heads;
  SelectionConfig selection;
  std::vector<int64_t> cu_seqlens;

  calls::SharedPlan plan() const {
    return calls::share_plan("test", selection, seq_len, batch, calls::optional_offsets(cu_seqlens));
  }
  int64_t total_heads() const { return num_heads + 2 * num_kv_heads; }
};

SelectionConfig selection_of(int64_t num_levels, int64_t pooling_factor, int64_t topk) {
  SelectionConfig config;
  config.num_levels = num_levels;
  config.pooling_factor = pooling_factor;
  config.topk = topk;
  config.tile_topk = 4;
  return config;
}

/// Lengths that no window divides, grouped heads, documents down to one token and some that are attended to in full,
/// windows within an octet and beyond a
/// group of tokens.
const Case kCases[] = {{2, 333, 16, 16, selection_of(3, 4, 9), {}},
                       {1, 1000, 32, 16, selection_of(4, 4, 12), {}},
                       {1, 517, 16, 16, selection_of(3, 2, 30), {0, 100, 101, 101, 396, 517}},
                       {1, 600, 16, 16, selection_of(3, 4, 12), {0, 20, 300, 300, 325, 600}},
                       {1, 7, 16, 16, selection_of(2, 2, 1), {}},
                       {2, 64, 48, 16, selection_of(2, 16, 2), {}}};

class TurnedGatherCuda : public testing::TestWithParam<std::tuple<Case, int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, TurnedGatherCuda,
                         testing::Combine(testing::ValuesIn(kCases), testing::Values(128, 256, 512),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param).seq_len) + "_" +
                                  std::to_string(std::get<1>(test.param)) + "_bytes_" +
                                  dtype_name(std::get<2>(test.param));
                         });

/// Packed heads, as a projection leaves them, and what turns them.
struct Inputs {
  at::Tensor heads, row_scale;
  Rotation rotation;
  at::Tensor q, k, v;

  Inputs(const Case& c, int64_t head_dim, at::ScalarType dtype)
      : heads(normal({c.batch, c.seq_len, c.total_heads(), head_dim}, 1, dtype)) {
    const at::Tensor angle = normal({c.seq_len, 1, head_dim / 2}, 9, at::kDouble) * 10;
    rotation = {angle.cos().to(at::kFloat), angle.sin().to(at::kFloat)};
    row_scale = normal({c.batch * c.seq_len}, 5, at::kFloat).abs();
    q = heads.narrow(2, 0, c.num_heads);
    k = heads.narrow(2, c.num_heads, c.num_kv_heads);
    v = heads.narrow(2, c.num_heads + c.num_kv_heads, c.num_kv_heads);
  }
};

std::optional<ops::GatheredRows> gathered(const Case& c, const Inputs& in) {
  return ops::gather_turned_by_norm(in.q, in.k, in.v, in.rotation, c.plan());
}

TEST_P(TurnedGatherCuda, GathersTheBitsOfTurnedHeads) {
  const auto& [c, head_bytes, dtype] = GetParam();
  const Inputs in(c, head_bytes / (dtype == at::kFloat ? 4 : 2), dtype);
  const at::Tensor before = in.heads.clone();
  const auto rows = gathered(c, in);
  ASSERT_TRUE(rows);
  expect_same_bits(in.heads, before, "the heads");
  rotate_heads_(in.heads, c.num_heads + c.num_kv_heads, in.rotation);
  const ops::GatheredRows expected = ops::gather_by_norm(in.q, in.k, in.v, c.plan());
  expect_same_bits(rows->gathering.selection, expected.gathering.selection, "selection");
  expect_same_bits(rows->gathering.slots, expected.gathering.slots, "slots");
  expect_same_bits(rows->q, expected.q, "q");
  expect_same_bits(rows->k, expected.k, "k");
  expect_same_bits(rows->v, expected.v, "v");
}

/// pack_head_gradients of gather's adjoint, in fp64 on the CPU, given rows by head.
at::Tensor packed_on_cpu(const Rows& rows, const ops::Gathering& gathering, const Rotation& rotation,
                         const at::Tensor& row_scale) {
  const ops::Gathering on_cpu{gathering.plan, gathering.selection.cpu(), gathering.slots.cpu()};
  const auto [dq, dk, dv] = ops::gather_rows_backward({exact(rows.q), exact(rows.k), exact(rows.v)}, on_cpu);
  return pack_head_gradients(dq, dk, dv, rotation, exact(row_scale));
}

TEST_P(TurnedGatherCuda, AdjointIsRoundedOnce) {
  const auto& [c, head_bytes, dtype] = GetParam();
  const int64_t head_dim = head_bytes / (dtype == at::kFloat ? 4 : 2);
  const Inputs in(c, head_dim, dtype);
  const auto selected = gathered(c, in);
  ASSERT_TRUE(selected);
  const ops::Gathering& gathering = selected->gathering;
  const int64_t length = gathering.selection.size(2);
  const auto by_row = [&](int64_t heads, int64_t seed) {
    return normal({c.batch, length, heads, head_dim}, seed, dtype).transpose(1, 2);
  };
  const Rows rows{by_row(c.num_heads, 2), normal(selected->k.sizes(), 3, dtype), by_row(c.num_kv_heads, 4)};
  const auto packed = [&] { return ops::gather_rows_backward_turned(rows, gathering, in.rotation, in.row_scale); };
  const auto actual = packed();
  ASSERT_TRUE(actual);
  const at::Tensor value = packed_on_cpu(rows, gathering, {in.rotation.cos.cpu(), in.rotation.sin.cpu()}, in.row_scale);
  // A token is a sum over levels, turned by two products and a sum, and scaled. Absolute values of the rows, turned by
  // cos = 1 and sin = -1 or 1 (back, to the first and the second half), add up what the terms of a channel are at most.
  const Rows sizes{rows.q.abs(), rows.k.abs(), rows.v.abs()};
  const at::Tensor ones = at::ones_like(in.rotation.cos.cpu());
  const at::Tensor magnitude = packed_on_cpu(sizes, gathering, {ones, ones}, in.row_scale)
                                   .maximum(packed_on_cpu(sizes, gathering, {ones, -ones}, in.row_scale));
  expect_close(actual->flatten(2).flatten(0, 1), value, magnitude * static_cast<double>(c.selection.num_levels + 3),
               "packed");
  expect_same_bits(*packed(), *actual, "repeat");
}

TEST(TurnedGatherRules, OthersAreLeftToTheCaller) {
  const auto taken = [](int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, at::ScalarType dtype,
                        const SelectionConfig& selection) {
    const Case c{1, 300, num_heads, num_kv_heads, selection, {}};
    return gathered(c, Inputs(c, head_dim, dtype)).has_value();
  };
  const SelectionConfig three = selection_of(3, 4, 4);
  EXPECT_TRUE(taken(8, 8, 128, at::kBFloat16, three));
  EXPECT_TRUE(taken(16, 8, 128, at::kBFloat16, three));
  EXPECT_FALSE(taken(8, 2, 128, at::kBFloat16, three));  // a block's heads are not all of the same tokens
  EXPECT_FALSE(taken(8, 8, 64, at::kBFloat16, three));
  EXPECT_TRUE(taken(16, 16, 64, at::kBFloat16, three));
  EXPECT_FALSE(taken(16, 16, 96, at::kBFloat16, three));
  EXPECT_FALSE(taken(8, 8, 128, at::kHalf, three));
  EXPECT_FALSE(taken(8, 8, 128, at::kDouble, three));
  EXPECT_FALSE(taken(8, 8, 128, at::kBFloat16, selection_of(1, 4, 4)));
  EXPECT_FALSE(taken(8, 8, 128, at::kBFloat16, selection_of(5, 4, 4)));  // windows of 256 tokens
}

}  // namespace
}  // namespace lighthouse::nn_test
