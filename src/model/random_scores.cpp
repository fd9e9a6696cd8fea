#include "model/random_scores.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include <cstdint>

#include "ops/gathering.h"

namespace lighthouse {
namespace {

/// The finaliser of MurmurHash3 over each element, whose int32 products wrap around.
at::Tensor scrambled(at::Tensor x) {
  const auto fold = [&](int64_t bits) { return x.bitwise_xor(x.bitwise_right_shift(bits)); };
  x = fold(16) * static_cast<int32_t>(0x85EBCA6BU);
  x = fold(13) * static_cast<int32_t>(0xC2B2AE35U);
  return fold(16);
}

at::Tensor uniform_hash(const at::Tensor& norms) {
  constexpr int32_t kMantissa = (1 << 24) - 1;  // what a float holds
  const at::Tensor position =
      at::arange(norms.size(-1), norms.options().dtype(at::kInt)) * static_cast<int32_t>(0x9E3779B1U);
  const at::Tensor hash = scrambled(norms.view(at::kInt).bitwise_xor(position));
  return hash.bitwise_and(kMantissa).to(at::kFloat) / (kMantissa + 1.0);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> random_scores(const at::Tensor& q, const at::Tensor& k) {
  const at::NoGradGuard no_grad;
  return {uniform_hash(ops::token_norms(q, k.size(2))), uniform_hash(ops::token_norms(k, k.size(2)))};
}

}  // namespace lighthouse
