#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <numeric>

#include "nn/heads.h"

namespace lighthouse {
namespace {

Rotation rotation_at(const at::Tensor& positions, const RopeFrequencies& frequencies) {
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(-1) * frequencies.inverse;  // [N, D/2]
  Rotation rotation{angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)};
  if (frequencies.attention_factor != 1) {
    rotation.cos.mul_(frequencies.attention_factor);
    rotation.sin.mul_(frequencies.attention_factor);
  }
  return rotation;
}

}  // namespace

Rotation make_rotation(int64_t first, int64_t seq_len, const RopeFrequencies& frequencies) {
  const auto options = frequencies.inverse.options().dtype(at::kLong);
  return rotation_at(at::arange(first, first + seq_len, options), frequencies);
}

Rotation make_rotation(std::span<const int64_t> cu_seqlens, const RopeFrequencies& frequencies,
                       const std::optional<Span>& tokens) {
  at::Tensor positions = at::empty({cu_seqlens.back()}, at::kLong);
  auto* const values = positions.mutable_data_ptr<int64_t>();
  for (size_t document = 0; document + 1 < cu_seqlens.size(); ++document) {
    std::iota(values + cu_seqlens[document], values + cu_seqlens[document + 1], int64_t{0});
  }
  if (tokens) positions = positions.slice(0, tokens->begin, tokens->end);
  return rotation_at(positions.to(frequencies.inverse.device()), frequencies);
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation, at::ScalarType dtype) {
  return rotated(x, rotation).to(dtype);
}

}  // namespace lighthouse
