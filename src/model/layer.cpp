#include "model/layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>

namespace lighthouse {
namespace {

/// q, k, v of one layer, [B, N, H, D] and [B, N, H_kv, D] twice.
struct Heads {
  at::Tensor q, k, v;
};

at::OptionalIntArrayRef as_array(std::span<const int64_t> cu_seqlens) {
  if (cu_seqlens.empty()) return std::nullopt;
  return at::IntArrayRef(cu_seqlens.data(), cu_seqlens.size());
}

at::Tensor dense_attention(const Heads& heads, const Pass& pass) {
  return causal_attention(heads.q.transpose(1, 2), heads.k.transpose(1, 2), heads.v.transpose(1, 2), std::nullopt,
                          as_array(pass.cu_seqlens))
      .transpose(1, 2);  // [B, N, H, D]
}

/// n new queries against all keys so far. The query heads of a KV head stand below one another as rows, so that keys
/// and values need no copy for each of them.
at::Tensor cached_attention(const Heads& heads, size_t layer, const Pass& pass) {
  const auto [k, v] = pass.cache->append(layer, heads.k.transpose(1, 2), heads.v.transpose(1, 2));
  const int64_t seen = pass.cache->length();
  if (seen == 0) return dense_attention(heads, pass);
  const int64_t batch = heads.q.size(0);
  const int64_t num_tokens = heads.q.size(1);
  const int64_t num_kv_heads = heads.k.size(2);
  const int64_t group = heads.q.size(2) / num_kv_heads;
  const at::Tensor q = heads.q.transpose(1, 2).reshape({batch, num_kv_heads, group * num_tokens, -1});
  std::optional<at::Tensor> mask;  // [G * n, seen + n]: new token i sees keys 0 to seen + i
  if (num_tokens > 1) {
    const at::Tensor keys = at::arange(seen + num_tokens, q.options().dtype(at::kLong));
    const at::Tensor last_key = at::arange(seen, seen + num_tokens, keys.options());
    mask = keys.le(last_key.unsqueeze(1)).repeat({group, 1});
  }
  const at::Tensor out = at::scaled_dot_product_attention(q, k, v, mask);             // [B, H_kv, G * n, D]
  return out.reshape({batch, group * num_kv_heads, num_tokens, -1}).transpose(1, 2);  // [B, n, H, D]
}

/// The log forget gate of the gla scorer, [B, N, H] fp32, from the block's input x [B, N, dim]; no gradient.
std::optional<at::Tensor> score_gate(const at::Tensor& x, const LayerWeights& weights) {
  if (!weights.score_gate.defined()) return std::nullopt;
  constexpr double kGateScale = 1.0 / 16;  // docs/algorithm.md (ii)
  return at::log_sigmoid(linear(x.detach(), weights.score_gate, at::kFloat)) * kGateScale;
}

at::Tensor self_attention(const at::Tensor& x, size_t layer, const LayerWeights& weights,
                          const std::optional<LighthouseSettings>& lighthouse, const Pass& pass) {
  const ModelConfig& model = pass.model;
  Heads heads{linear(x, weights.q_proj, pass.dtype).unflatten(-1, {model.num_heads, model.head_dim}),
              linear(x, weights.k_proj, pass.dtype).unflatten(-1, {model.num_kv_heads, model.head_dim}),
              linear(x, weights.v_proj, pass.dtype).unflatten(-1, {model.num_kv_heads, model.head_dim})};

  AttentionOptions options;
  if (lighthouse) {
    options.selection_config = lighthouse->selection;
    options.score_config = lighthouse->score;
    options.gate = score_gate(x, weights);
    options.cu_seqlens = as_array(pass.cu_seqlens);
  }
  if (model.qk_norm) {
    if (lighthouse) {  // normed heads all have the same norm: scores come from the heads before
      options.scores = token_scores(heads.q.detach(), heads.k.detach(), heads.v.detach(), options.score_config,
                                    options.gate, options.cu_seqlens);
      options.gate = std::nullopt;
    }
    heads.q = rms_norm(heads.q, weights.q_norm, model.rms_norm_eps);
    heads.k = rms_norm(heads.k, weights.k_norm, model.rms_norm_eps);
  }
  heads.q = rotate(heads.q, pass.rotation, pass.dtype);
  heads.k = rotate(heads.k, pass.rotation, pass.dtype);

  at::Tensor out;  // [B, N, H, D]
  if (pass.cache != nullptr) {
    out = cached_attention(heads, layer, pass);
  } else if (lighthouse) {
    out = lighthouse_attention(heads.q, heads.k, heads.v, options);
  } else {
    out = dense_attention(heads, pass);
  }
  return linear(out.flatten(2), weights.o_proj, pass.dtype);  // [B, N, dim]
}

/// SwiGLU.
at::Tensor feed_forward(const at::Tensor& x, const LayerWeights& weights, at::ScalarType dtype) {
  const at::Tensor gate = at::silu(linear(x, weights.gate_proj, dtype));  // [B, N, ffn_dim]
  const at::Tensor up = linear(x, weights.up_proj, dtype);                // [B, N, ffn_dim]
  return linear(gate * up, weights.down_proj, dtype);                     // [B, N, dim]
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::ScalarType dtype = c10::promoteTypes(x.scalar_type(), at::kFloat);
  return at::rms_norm(x.to(dtype), weight.sizes(), weight.to(dtype), eps);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, at::ScalarType dtype) {
  return at::linear(x.to(dtype), weight.to(dtype));
}

at::Tensor decoder_layer(const at::Tensor& x, size_t layer, const LayerWeights& weights,
                         const std::optional<LighthouseSettings>& lighthouse, const Pass& pass) {
  const double eps = pass.model.rms_norm_eps;
  const at::Tensor h = x + self_attention(rms_norm(x, weights.input_norm, eps), layer, weights, lighthouse, pass);
  return h + feed_forward(rms_norm(h, weights.post_attention_norm, eps), weights, pass.dtype);
}

}  // namespace lighthouse
