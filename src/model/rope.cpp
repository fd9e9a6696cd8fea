#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>

#include <numeric>

#include "nn/heads.h"

namespace lighthouse {
namespace {

/// In fp32, in transformers' order of operations: at large positions another rounding of the frequencies would show.
Rotation rotation_at(const at::Tensor& positions, int64_t head_dim, double theta) {
  const at::Tensor exponents = at::arange(0, head_dim, 2, positions.options().dtype(at::kFloat)) / head_dim;
  const at::Tensor frequencies = at::pow(theta, exponents).reciprocal();           // [D/2]
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(-1) * frequencies;  // [N, D/2]
  return {angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)};
}

}  // namespace

Rotation make_rotation(int64_t first, int64_t seq_len, int64_t head_dim, double theta, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return rotation_at(at::arange(first, first + seq_len, options), head_dim, theta);
}

Rotation make_rotation(std::span<const int64_t> cu_seqlens, int64_t head_dim, double theta, at::Device device,
                       const std::optional<Span>& tokens) {
  at::Tensor positions = at::empty({cu_seqlens.back()}, at::kLong);
  auto* const values = positions.mutable_data_ptr<int64_t>();
  for (size_t document = 0; document + 1 < cu_seqlens.size(); ++document) {
    std::iota(values + cu_seqlens[document], values + cu_seqlens[document + 1], int64_t{0});
  }
  if (tokens) positions = positions.slice(0, tokens->begin, tokens->end);
  return rotation_at(positions.to(device), head_dim, theta);
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation, at::ScalarType dtype) {
  return rotated(x, rotation.cos, rotation.sin).to(dtype);
}

}  // namespace lighthouse
