// The stages of a pass, again and again: a thousand times the same bits, or as many as LIGHTHOUSE_TEST_REPEATS says.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/gathering.h"
#include "support/environment_number.h"
#include "support/gpu_gate.h"

namespace lighthouse {
namespace {

/// Sizes for which a GPU is done with a thousand in seconds.
struct Shape {
  const char* name;
  int64_t seq_len, num_heads, num_kv_heads, head_dim;
  int64_t num_levels, pooling_factor, topk, tile_topk;
  at::ScalarType dtype = at::kBFloat16;
  Scorer scorer = Scorer::kNorm;
  int64_t dilation = 4;
  std::vector<int64_t> cu_seqlens = {};
  int64_t batch = 1;
};
void PrintTo(const Shape& shape, std::ostream* stream) { *stream << shape.name; }

const Shape kShapes[] = {
    {"longer", 16384 + 5, 4, 2, 128, 3, 4, 256, 128},
    {"one_head", 2048, 1, 1, 128, 3, 4, 32, 16},
    {"grouped", 2048 + 1, 8, 2, 64, 3, 4, 32, 16},
    {"one_of_all_heads", 1024 - 1, 16, 1, 64, 3, 4, 16, 8},
    {"odd_length", 3001, 2, 2, 128, 3, 4, 47, 16},
    {"deep", 1027, 2, 2, 32, 5, 2, 7, 3},
    {"two_levels", 1500, 4, 4, 64, 2, 8, 24, 8},
    {"wide_windows", 4096 + 17, 2, 1, 64, 2, 16, 32, 16},
    {"one_level", 700, 2, 2, 64, 1, 4, 64, 32},
    {"one_tile", 1024, 4, 2, 128, 3, 4, 16, 128},
    {"many_tiles", 4096, 2, 2, 64, 3, 4, 64, 1},
    {"narrow_heads", 1999, 4, 4, 16, 3, 4, 32, 8},
    {"channels_of_no_octet", 1025, 2, 2, 20, 3, 4, 16, 8},
    {"wide_heads", 900, 2, 1, 256, 3, 4, 16, 8},
    {"batch", 777, 4, 2, 64, 3, 4, 16, 8, at::kBFloat16, Scorer::kNorm, 4, {}, 3},
    {"fp16", 2047, 4, 2, 128, 3, 4, 32, 16, at::kHalf},
    {"fp32", 1333, 4, 2, 64, 3, 4, 16, 8, at::kFloat},
    {"fp64", 513, 2, 1, 32, 3, 4, 16, 8, at::kDouble},
    {"packed", 4096 - 3, 4, 2, 64, 3, 4, 64, 8, at::kBFloat16, Scorer::kNorm, 4, {0, 1, 130, 131, 2500, 4093}},
    {"dilated", 2048 + 3, 4, 2, 64, 3, 4, 32, 16, at::kBFloat16, Scorer::kDilated, 4},
    {"gla", 1024 + 9, 4, 4, 64, 3, 4, 32, 16, at::kBFloat16, Scorer::kGla, 2},
    {"gla_packed", 1500, 4, 2, 64, 3, 4, 32, 8, at::kBFloat16, Scorer::kGla, 4, {0, 64, 65, 900, 1500}},
};

std::vector<at::Tensor> pass_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& dout,
                                const calls::SharedPlan& plan, const AttentionOptions& options) {
  const ops::GatheredRows rows = ops::select_and_gather(q, k, v, plan, options);
  const auto [dq, dk, dv] = ops::gather_rows_backward(rows, rows.gathering);
  return {rows.q,
          rows.k,
          rows.v,
          rows.gathering.selection,
          rows.gathering.slots,
          dq,
          dk,
          dv,
          ops::scatter_rows(rows.q, rows.gathering),
          ops::scatter_rows_backward(dout, rows.gathering)};
}

class RepeatsCuda : public ::testing::TestWithParam<Shape> {};

TEST_P(RepeatsCuda, AThousandTimesTheSameBits) {
  if (!test_support::gpu_gate(at::hasCUDA())) GTEST_SKIP() << "no CUDA device";
  const Shape& shape = GetParam();
  const auto like = at::TensorOptions().device(at::kCUDA).dtype(shape.dtype);
  const auto heads = [&](int64_t count) {
    return at::randn({shape.batch, shape.seq_len, count, shape.head_dim}, like);
  };
  const at::Tensor q = heads(shape.num_heads), k = heads(shape.num_kv_heads), v = heads(shape.num_kv_heads);
  const at::Tensor dout = heads(shape.num_heads);
  AttentionOptions options;
  options.selection_config.num_levels = shape.num_levels;
  options.selection_config.pooling_factor = shape.pooling_factor;
  options.selection_config.topk = shape.topk;
  options.selection_config.tile_topk = shape.tile_topk;
  options.score_config = {shape.scorer, shape.dilation};
  if (shape.scorer == Scorer::kGla) {
    options.gate = at::randn({shape.batch, shape.seq_len, shape.num_heads}, like.dtype(at::kFloat)).abs().neg();
  }
  const auto documents =
      shape.cu_seqlens.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(shape.cu_seqlens);
  const calls::SharedPlan plan = ops::plan_of("test", options.selection_config, shape.seq_len, shape.batch, documents);

  const std::vector<at::Tensor> first = pass_of(q, k, v, dout, plan, options);
  at::Tensor all_equal = at::ones({}, like.dtype(at::kBool));
  const int repeats = environment_number("LIGHTHOUSE_TEST_REPEATS", 1000);
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const std::vector<at::Tensor> again = pass_of(q, k, v, dout, plan, options);
    for (size_t i = 0; i < first.size(); ++i) all_equal.logical_and_((again[i] == first[i]).all());
  }
  EXPECT_TRUE(all_equal.item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Shapes, RepeatsCuda, ::testing::ValuesIn(kShapes),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace lighthouse
