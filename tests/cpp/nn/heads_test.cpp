#include "nn/heads.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <tuple>

#include "nn_support.h"

namespace lighthouse::nn_test {
namespace {

struct Shape {
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
};

/// Head sizes with a kernel and without; more heads than one thread takes; more vectors than a block has threads.
const Shape kShapes[] = {{2, 5, 3, 1, 16}, {1, 7, 2, 2, 6},  {3, 33, 16, 8, 64},  {2, 17, 6, 2, 128},
                         {1, 3, 1, 1, 2},  {1, 9, 5, 1, 80}, {1, 2, 70, 10, 256}, {2, 3, 4, 2, 24}};

class HeadsTest : public testing::TestWithParam<std::tuple<Shape, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Cases, HeadsTest,
                         testing::Combine(testing::ValuesIn(kShapes), testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& test) {
                           const Shape& shape = std::get<0>(test.param);
                           return std::to_string(shape.num_heads) + "x" + std::to_string(shape.head_dim) + "_" +
                                  dtype_name(std::get<1>(test.param));
                         });

Rotation rotation_of(const Shape& shape, at::ScalarType dtype = at::kFloat) {
  const at::Tensor angle = normal({shape.seq_len, 1, shape.head_dim / 2}, 9, at::kDouble) * 10;
  return {angle.cos().to(at::kFloat).to(dtype), angle.sin().to(at::kFloat).to(dtype)};
}

/// The formula, in fp64 on the CPU.
at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

/// What the two terms of every channel are at most, together.
at::Tensor pair_sums(const at::Tensor& x) {
  const auto halves = exact(x).abs().chunk(2, -1);
  return at::cat({halves[0] + halves[1], halves[0] + halves[1]}, -1);
}

TEST_P(HeadsTest, Rotates) {
  const auto& [shape, dtype] = GetParam();
  const auto [cos, sin] = rotation_of(shape);
  const int64_t total = shape.num_heads + 2 * shape.num_kv_heads;
  for (const int64_t rotated : {shape.num_heads + shape.num_kv_heads, total, int64_t{0}}) {
    const at::Tensor heads = normal({shape.batch, shape.seq_len, total, shape.head_dim}, 1, dtype);
    const at::Tensor before = heads.clone();
    rotate_heads_(heads, rotated, {cos, sin});
    const at::Tensor part = exact(before).narrow(2, 0, rotated);
    expect_close(heads.narrow(2, 0, rotated), turned(part, exact(cos), exact(sin)), 2 * pair_sums(part),
                 "rotated");  // a product and a sum
    expect_same_bits(heads.narrow(2, rotated, total - rotated), before.narrow(2, rotated, total - rotated), "others");
  }
}

at::Tensor packed_reference(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const Rotation& rotation,
                            const at::Tensor& inverse_rms) {
  const at::Tensor cos = exact(rotation.cos);
  const at::Tensor sin = exact(rotation.sin);
  const at::Tensor heads = at::cat({turned(exact(dq), cos, -sin), turned(exact(dk), cos, -sin), exact(dv)}, 2);
  return (heads * exact(inverse_rms).view({dq.size(0), dq.size(1), 1, 1})).flatten(2).flatten(0, 1);
}

/// A product, a sum and the scale.
at::Tensor packed_magnitude(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                            const at::Tensor& inverse_rms) {
  const at::Tensor heads = at::cat({pair_sums(dq), pair_sums(dk), pair_sums(dv)}, 2);
  return 3 * (heads * exact(inverse_rms).view({dq.size(0), dq.size(1), 1, 1})).flatten(2).flatten(0, 1);
}

TEST_P(HeadsTest, PacksGradients) {
  const auto& [shape, dtype] = GetParam();
  const Rotation rotation = rotation_of(shape);
  const at::Tensor inverse_rms = normal({shape.batch * shape.seq_len}, 5, at::kFloat).abs();
  const auto by_token = [&](int64_t heads, int64_t seed) {
    return normal({shape.batch, shape.seq_len, heads, shape.head_dim}, seed, dtype);
  };
  const auto by_head = [&](int64_t heads, int64_t seed) {
    return normal({shape.batch, heads, shape.seq_len, shape.head_dim}, seed, dtype).transpose(1, 2);
  };
  const at::Tensor dq = by_head(shape.num_heads, 1);
  const at::Tensor dk = by_token(shape.num_kv_heads, 2);
  const at::Tensor dv = by_head(shape.num_kv_heads, 3);
  const at::Tensor packed = pack_head_gradients(dq, dk, dv, rotation, inverse_rms);
  EXPECT_EQ(packed.scalar_type(), dtype);
  expect_close(packed, packed_reference(dq, dk, dv, rotation, inverse_rms), packed_magnitude(dq, dk, dv, inverse_rms),
               "packed");
  expect_same_bits(pack_head_gradients(dq, dk, dv, rotation, inverse_rms), packed, "repeat");
  expect_same_bits(pack_head_gradients(dq.contiguous(), dk, dv.contiguous(), rotation, inverse_rms), packed,
                   "other strides");
}

TEST_P(HeadsTest, PacksWithoutRotation) {
  const auto& [shape, dtype] = GetParam();
  const at::Tensor dq = normal({shape.batch, shape.seq_len, shape.num_heads, shape.head_dim}, 1, dtype);
  const at::Tensor dk = normal({shape.batch, shape.seq_len, shape.num_kv_heads, shape.head_dim}, 2, dtype);
  const at::Tensor inverse_rms = normal({shape.batch * shape.seq_len}, 5, at::kFloat).abs();
  const at::Tensor packed = pack_head_gradients(dq, dk, dk, {}, inverse_rms);
  const at::Tensor product =
      at::cat({exact(dq), exact(dk), exact(dk)}, 2).flatten(2).flatten(0, 1) * exact(inverse_rms).unsqueeze(1);
  // One product: its 48 bits are exact in fp64, so the rounding to fp32 and T is that of the processor.
  expect_same_bits(packed.cpu(), product.to(at::kFloat).to(dtype), "packed");
}

TEST(Heads, GradientsAreTheAdjoint) {
  const Shape shape{2, 5, 3, 1, 16};
  const Rotation rotation = rotation_of(shape);
  const at::Tensor x = normal({2, 5, 5, 16}, 1, at::kDouble);
  const at::Tensor y = normal({2, 5, 5, 16}, 2, at::kDouble);
  const at::Tensor rotated = x.clone();
  rotate_heads_(rotated, 4, rotation);
  const at::Tensor back = pack_head_gradients(y.narrow(2, 0, 3), y.narrow(2, 3, 1), y.narrow(2, 4, 1), rotation,
                                              normal({10}, 1, at::kDouble).fill_(1));
  // 800 terms of about 1.
  EXPECT_NEAR((rotated * y).sum().item<double>(), (x.flatten() * back.flatten()).sum().item<double>(), 1e-12);
}

TEST(Heads, UnalignedRows) {
  const Shape shape{1, 4, 1, 1, 32};
  const Rotation rotation = rotation_of(shape);
  const at::Tensor memory = normal({1, 4, 3, 33}, 1, at::kBFloat16);
  const at::Tensor heads = memory.narrow(3, 1, 32);
  const at::Tensor inverse_rms = normal({4}, 5, at::kFloat).abs();
  const auto part = [&](const at::Tensor& x, int64_t head) { return x.narrow(2, head, 1); };
  const at::Tensor packed = pack_head_gradients(part(heads, 0), part(heads, 1), part(heads, 2), rotation, inverse_rms);
  expect_close(packed, packed_reference(part(heads, 0), part(heads, 1), part(heads, 2), rotation, inverse_rms),
               packed_magnitude(part(heads, 0), part(heads, 1), part(heads, 2), inverse_rms), "unaligned");
}

TEST(Heads, NoTokensAndWrongShapes) {
  const Shape shape{1, 4, 2, 1, 16};
  const Rotation rotation = rotation_of(shape);
  const auto& [cos, sin] = rotation;
  const at::Tensor empty = normal({0, 4, 4, 16}, 1, at::kBFloat16);
  rotate_heads_(empty, 3, rotation);
  EXPECT_EQ(pack_head_gradients(empty, empty, empty, rotation, normal({0}, 1, at::kFloat)).numel(), 0);
  const at::Tensor heads = normal({1, 4, 4, 16}, 1, at::kFloat);
  EXPECT_ANY_THROW(rotate_heads_(heads, 5, rotation));
  EXPECT_ANY_THROW(rotate_heads_(heads, 3, {cos.narrow(0, 0, 3), sin}));
  EXPECT_ANY_THROW(pack_head_gradients(heads, heads, heads, {cos, {}}, normal({4}, 1, at::kFloat)));
}

}  // namespace
}  // namespace lighthouse::nn_test
