// What the tests of the decoder share: small models, random tokens, and what two results may differ by.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "config/run_config.h"
#include "model/decoder.h"
#include "model/random.h"
#include "support/same_bits.h"

namespace lighthouse {

using enum AttentionMode;

/// Grouped queries, a head dimension that is not dim / num_heads, weights large enough for attention to matter.
inline ModelConfig small_model() {
  return {.vocab_size = 31,
          .dim = 24,
          .num_layers = 2,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 8,
          .ffn_dim = 40,
          .rope_theta = 1000.0,
          .init_std = 0.2};
}

inline at::Tensor random_tokens(int64_t batch, int64_t seq_len, int64_t vocab_size, uint64_t seed = 1) {
  at::Tensor tokens = at::empty({batch, seq_len}, at::kLong);
  auto* const values = tokens.mutable_data_ptr<int64_t>();
  const uint64_t stream = random_stream(seed, "tokens");
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    values[i] = static_cast<int64_t>(random_bits(stream, static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

/// Norm weights in [0.5, 1.5): in a fresh model they are one, so that a forgotten one would not show.
inline void spread_norms(const Decoder& decoder) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : decoder.parameters()) {
    if (tensor.dim() != 1) continue;
    auto* const values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      values[i] = static_cast<float>(0.5 + random_uniform(random_stream(1, name), static_cast<uint64_t>(i)));
    }
  }
}

inline at::Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors) {
    if (known == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

inline double max_abs(const at::Tensor& x) { return x.detach().to(at::kDouble).abs().max().item<double>(); }

/// Two orders of the same fp64 computation: no result of these small models is further than a million roundings of the
/// largest value from the exact one, while a wrong formula moves it by a visible fraction.
inline void expect_equal_in_fp64(const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_EQ(actual.scalar_type(), at::kDouble);
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor error = (actual - expected).abs().flatten();
  const double bound = 1e6 * std::numeric_limits<double>::epsilon() * max_abs(expected);
  const int64_t worst = error.argmax().item<int64_t>();
  EXPECT_LE(error[worst].item<double>(), bound)
      << "element " << worst << " is " << actual.flatten()[worst].item<double>() << " instead of "
      << expected.flatten()[worst].item<double>();
}

}  // namespace lighthouse
