#include "bench/composed_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

namespace lighthouse::bench {
namespace {

Pyramid pyramid_over(int64_t seq_len, const SelectionConfig& config) {
  return {seq_len, static_cast<int>(config.num_levels), config.log2_pool()};
}

/// Index arrays [B, H_kv, S] as [B, H, S, D] for look-ups in [B, H, E, D].
at::Tensor index_for(const at::Tensor& selection, int64_t num_heads, int64_t head_dim) {
  return selection.to(at::kLong)
      .repeat_interleave(num_heads / selection.size(1), 1)
      .unsqueeze(-1)
      .expand({-1, -1, -1, head_dim});
}

/// All entries of x [B, N, H, D], level after level: [B, H, E, D].
at::Tensor pooled(const at::Tensor& x, const Pyramid& pyramid) {
  const at::Tensor padded = at::constant_pad_nd(x.transpose(1, 2), {0, 0, 0, pyramid.padded_len() - pyramid.seq_len});
  std::vector<at::Tensor> levels;
  levels.reserve(pyramid.num_levels);
  for (int level = 0; level < pyramid.num_levels; ++level) {
    levels.push_back(padded.unflatten(2, {-1, pyramid.window(level)}).mean(3));
  }
  return at::cat(levels, 2);
}

/// Entries [B, H, E, D], zero where not selected, added to the tokens they stand for: [B, N, H, D].
at::Tensor spread(const at::Tensor& entries, const Pyramid& pyramid) {
  at::Tensor sum;
  for (int level = 0; level < pyramid.num_levels; ++level) {
    const int64_t size = pyramid.padded_len() >> pyramid.shift(level);
    const int64_t first = pyramid.window(level) - 1;  // the token on which entry 0 starts to be seen
    const at::Tensor repeated =
        entries.narrow(2, pyramid.entry_offset(level), size).repeat_interleave(pyramid.window(level), 2);
    const at::Tensor shifted = at::constant_pad_nd(repeated, {0, 0, first, 0}).narrow(2, 0, pyramid.seq_len);
    sum = level == 0 ? shifted : sum + shifted;
  }
  return sum.transpose(1, 2);
}

}  // namespace

at::Tensor composed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& selection, const SelectionConfig& config) {
  const Pyramid pyramid = pyramid_over(q.size(1), config);
  const at::Tensor index = index_for(selection, q.size(2), q.size(3));
  // Grouped heads, and those of an odd number of channels, would take another stock kernel in fp32 on CUDA.
  const int64_t head_dim = q.size(3), missing = q.is_cuda() ? (8 - head_dim % 8) % 8 : 0;
  const auto rows = [&](const at::Tensor& x) {
    const at::Tensor entries = pooled(x.repeat_interleave(q.size(2) / x.size(2), 2), pyramid);
    return at::constant_pad_nd(entries.gather(2, index), {0, missing});
  };
  const at::Tensor o_rows =
      at::scaled_dot_product_attention(rows(q), rows(k), rows(v), std::nullopt, 0.0, /*is_causal=*/true,
                                       1 / std::sqrt(static_cast<double>(head_dim)))
          .narrow(3, 0, head_dim);
  const at::Tensor none =
      at::zeros({q.size(0), q.size(2), pyramid.entry_offset(pyramid.num_levels), q.size(3)}, q.options());
  return spread(none.scatter(2, index, o_rows), pyramid);
}

}  // namespace lighthouse::bench
