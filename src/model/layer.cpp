#include "model/layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "model/output_projection.h"
#include "model/part_clock.h"
#include "model/qkv_projection.h"
#include "model/random_scores.h"
#include "ops/inner_attention.h"
#include "ops/window_attention.h"
#include "parallel/context_attention.h"

namespace lighthouse {
namespace {

/// Of each document of a row of `seq_len` tokens.
std::vector<int64_t> document_lengths(const std::vector<int64_t>& cu_seqlens, int64_t seq_len) {
  if (cu_seqlens.empty()) return {seq_len};
  std::vector<int64_t> lengths;
  for (size_t i = 1; i < cu_seqlens.size(); ++i) lengths.push_back(cu_seqlens[i] - cu_seqlens[i - 1]);
  return lengths;
}

at::Tensor dense_attention(const Heads& heads, const Pass& pass) {
  const at::Tensor out = ops::stock_attention(heads.q.transpose(1, 2), heads.k.transpose(1, 2), heads.v.transpose(1, 2),
                                              document_lengths(pass.cu_seqlens, heads.q.size(1)),
                                              /*softmax_scale=*/std::nullopt, pass.deterministic);
  return ops::with_any_gradient(out).transpose(1, 2);  // [B, N, H, D]
}

/// Dense attention inside short sequences: a batch of more of them.
at::Tensor short_attention(const Heads& heads, const Pass& pass) {
  const auto cut = [&](const at::Tensor& x) { return x.reshape({-1, pass.short_len, x.size(2), x.size(3)}); };
  return dense_attention({cut(heads.q), cut(heads.k), cut(heads.v)}, pass).reshape(heads.q.sizes());
}

/// Of a layer without Lighthouse attention.
at::Tensor token_attention(const Heads& heads, const Layer& layer, const Pass& pass) {
  if (layer.window > 0) {
    return ops::window_attention(heads.q, heads.k, heads.v, layer.window, documents_of(pass), pass.deterministic);
  }
  return pass.short_len > 0 ? short_attention(heads, pass) : dense_attention(heads, pass);
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

/// The log forget gate of the gla scorer, [B, N, H] fp32, from the block's input x [B, N, dim] before its norm; no
/// gradient.
std::optional<at::Tensor> score_gate(const at::Tensor& x, const LayerWeights& weights, double eps) {
  if (!weights.score_gate.defined()) return std::nullopt;
  constexpr double kGateScale = 1.0 / 16;  // docs/algorithm.md (ii)
  const at::NoGradGuard no_grad;
  const at::Tensor normed = rms_norm(x, weights.input_norm, eps).to(at::kFloat);
  return at::log_sigmoid(at::linear(normed, weights.score_gate)) * kGateScale;
}

/// What attention is told, but for scores.
AttentionOptions attention_options(const Pass& pass) {
  AttentionOptions options;
  options.deterministic = pass.deterministic;
  return options;
}

/// Scores of heads from elsewhere than the scorer within attention: normed heads all have the same norm, so theirs come
/// from the heads before; random ones are no scorer of the operators.
void score_ahead(const Heads& heads, bool qk_norm, const Layer& layer, AttentionOptions& options) {
  if (options.score_config.scorer == Scorer::kRandom) {
    options.scores = random_scores(heads.q.detach(), heads.k.detach());
    options.score_config = {};
  } else if (qk_norm) {
    const Heads unnormed{heads.q.detach(), heads.k.detach(), heads.v.detach()};
    const auto& [q, k, v] = unnormed;
    options.scores = layer.row != nullptr ? token_scores(q, k, v, options.score_config, options.gate, layer.row)
                                          : ops::token_scores(q, k, v, options.score_config, options.gate, layer.plan);
    options.gate = std::nullopt;
  }
}

/// Norm and rotation of q and k, which come without.
Heads normed_and_rotated(const Heads& heads, const LayerWeights& weights, const Pass& pass) {
  const double eps = pass.model.rms_norm_eps;
  const at::ScalarType dtype = heads.q.scalar_type();
  return {rotate(rms_norm(heads.q, weights.q_norm, eps), pass.rotation, dtype),
          rotate(rms_norm(heads.k, weights.k_norm, eps), pass.rotation, dtype), heads.v};
}

Rotation rotation_of(const Layer& layer, const Pass& pass) { return layer.rope ? pass.rotation : Rotation(); }

/// What attention is given: heads with their norm and turned, and what it is told of them.
struct Prepared {
  at::Tensor x;  ///< the sum of the residual stream
  Heads heads;
  AttentionOptions options;
};
/// `selects`: with what its selection is made by.
Prepared prepare(const Residual& in, const Layer& layer, const Pass& pass, bool selects = false) {
  const bool qk_norm = pass.model.qk_norm();
  auto [x, heads] = qkv_projection(in, layer.weights, layer.compute, pass.model.rms_norm_eps, pass.model.head_dim,
                                   qk_norm ? Rotation() : rotation_of(layer, pass));
  AttentionOptions options = attention_options(pass);
  if (selects) {
    options.score_config = layer.lighthouse->score;
    options.gate = score_gate(x, layer.weights, pass.model.rms_norm_eps);
    score_ahead(heads, qk_norm, layer, options);
  }
  if (qk_norm) heads = normed_and_rotated(heads, layer.weights, pass);
  return {x, std::move(heads), std::move(options)};
}

/// What attention on gathered rows adds to the residual stream.
at::Tensor attended(const ops::GatheredRows& rows, const AttentionOptions& options, const Layer& layer) {
  if (layer.row != nullptr) {
    return shared_output_projection(attend_on_heads(rows, options, *layer.row), rows.gathering, layer.row,
                                    layer.weights, layer.compute);
  }
  return output_projection(ops::attend(rows, layer.plan, options), rows.gathering, layer.weights, layer.compute);
}

/// Attention on what the norm scorer selects of the heads that attention is given.
Residual selected_attention(const Residual& in, const Layer& layer, const Pass& pass, ops::Gathering& selected) {
  const auto [x, rows] = selected_projection(in, layer.weights, layer.compute, pass.model.rms_norm_eps,
                                             pass.model.head_dim, rotation_of(layer, pass), layer.plan);
  selected = rows.gathering;
  return {x, attended(rows, attention_options(pass), layer)};
}

/// Attention on what any scorer or scores made ahead select.
Residual scored_attention(const Residual& in, const Layer& layer, const Pass& pass, ops::Gathering& selected) {
  const auto [x, heads, options] = prepare(in, layer, pass, /*selects=*/true);
  const ops::GatheredRows rows = layer.row != nullptr
                                     ? select_and_gather(heads.q, heads.k, heads.v, options, layer.row)
                                     : ops::select_and_gather(heads.q, heads.k, heads.v, layer.plan, options);
  selected = rows.gathering;
  return {x, attended(rows, options, layer)};
}

/// Attention on what was selected before.
Residual given_attention(const Residual& in, const Layer& layer, const Pass& pass, const ops::Gathering& selected) {
  const auto [x, heads, options] = prepare(in, layer, pass);
  return {x, attended({ops::gather_rows(heads.q, heads.k, heads.v, selected), selected}, options, layer)};
}

/// Attention in a window, of one document of a row that ranks share.
InnerAttention shared_window(const Layer& layer, const Pass& pass) {
  return [span = layer.window, deterministic = pass.deterministic](const at::Tensor& q, const at::Tensor& k,
                                                                   const at::Tensor& v) {
    return ops::window_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), span, std::nullopt,
                                 deterministic)
        .transpose(1, 2);
  };
}

/// Dense attention, or in a window, of a row that ranks share.
Residual shared_dense_attention(const Residual& in, const Layer& layer, const Pass& pass) {
  auto [x, heads, options] = prepare(in, layer, pass);
  if (layer.window > 0) options.attention = shared_window(layer, pass);
  return {x, attended({{heads.q, heads.k, heads.v}, {}}, options, layer)};
}

enum class LayerAttention { kCached, kDense, kSharedDense, kSelected, kScored, kGiven };

LayerAttention attention_of(const Layer& layer, const Pass& pass, const ops::Gathering& selected) {
  if (pass.cache != nullptr) return LayerAttention::kCached;
  if (!layer.lighthouse) return layer.row != nullptr ? LayerAttention::kSharedDense : LayerAttention::kDense;
  if (selected.selection.defined()) return LayerAttention::kGiven;
  return selects_in_gather(pass.model, layer.lighthouse->score.scorer) ? LayerAttention::kSelected
                                                                       : LayerAttention::kScored;
}

/// x + in.update and what attention adds to it.
Residual self_attention(const Residual& in, const Layer& layer, const Pass& pass, ops::Gathering& selected) {
  const PartScope part(Part::kAttention);
  const auto through_tokens = [&](const auto& attention) -> Residual {
    const Prepared prepared = prepare(in, layer, pass);
    return {prepared.x, output_projection(attention(prepared), std::nullopt, layer.weights, layer.compute)};
  };
  switch (attention_of(layer, pass, selected)) {
    case LayerAttention::kCached:
      return through_tokens(
          [&](const Prepared& prepared) { return cached_attention(prepared.heads, layer.index, pass); });
    case LayerAttention::kDense:
      return through_tokens([&](const Prepared& prepared) { return token_attention(prepared.heads, layer, pass); });
    case LayerAttention::kSharedDense:
      return shared_dense_attention(in, layer, pass);
    case LayerAttention::kSelected:
      return selected_attention(in, layer, pass, selected);
    case LayerAttention::kScored:
      return scored_attention(in, layer, pass, selected);
    case LayerAttention::kGiven:
      return given_attention(in, layer, pass, selected);
  }
  throw InvalidArgument("decoder_layer: no such attention");
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::ScalarType dtype = c10::promoteTypes(x.scalar_type(), at::kFloat);
  return at::rms_norm(x.to(dtype), weight.sizes(), weight.to(dtype), eps);
}

Residual decoder_layer(const Residual& in, const Layer& layer, const Pass& pass, ops::Gathering& selected,
                       ForwardFor use) {
  return feed_forward(self_attention(in, layer, pass, selected), layer.weights, layer.compute, pass.model.rms_norm_eps,
                      pass.keep_gate_up, use);
}

}  // namespace lighthouse
