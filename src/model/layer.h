// One block of the decoder: x + attention(norm(x)), then x + feed_forward(norm(x)).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "config/run_config.h"
#include "lighthouse/ops.h"
#include "model/kv_cache.h"
#include "model/rope.h"
#include "model/weights.h"

namespace lighthouse {

/// Lighthouse attention as one layer runs it.
struct LighthouseSettings {
  SelectionConfig selection;
  ScoreConfig score;
};

/// What all layers of one pass share.
struct Pass {
  const ModelConfig& model;
  at::ScalarType dtype;  ///< of matrix products and attention
  Rotation rotation;
  std::span<const int64_t> cu_seqlens;  ///< packed documents, or empty
  KvCache* cache = nullptr;             ///< not null: the tokens go on from those in the cache; dense attention only
};

/// x [.., C] times its inverse root mean square over C, times weight [C]; in fp32, or fp64 if x is.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
/// x [.., in] times weight [out, in] transposed, both rounded to `dtype`.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, at::ScalarType dtype);

/// x [B, N, dim] fp32 -> [B, N, dim] fp32. Without `lighthouse` the attention is dense.
at::Tensor decoder_layer(const at::Tensor& x, size_t layer, const LayerWeights& weights,
                         const std::optional<LighthouseSettings>& lighthouse, const Pass& pass);

}  // namespace lighthouse
