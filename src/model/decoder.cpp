#include "model/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>

#include <algorithm>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "model/kv_cache.h"
#include "model/layer.h"
#include "model/loss.h"

namespace lighthouse {
namespace {

/// The limits and the errors of the configuration hold for callers without a configuration file too.
void check_config(const ModelConfig& model, const AttentionConfig& attention, at::ScalarType compute_dtype) {
  RunConfig config;
  config.model = model;
  config.attention = attention;
  try {
    validate(config);
  } catch (const ConfigError& error) {
    throw InvalidArgument(detail::concat("Decoder: ", error.what()));
  }
  LIGHTHOUSE_CHECK(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16 || compute_dtype == at::kDouble,
                   "Decoder: compute_dtype ", c10::toString(compute_dtype), " must be float, bfloat16 or double");
}

void check_token_tensor(const at::Tensor& tokens, const char* name, at::Device device) {
  LIGHTHOUSE_CHECK(tokens.defined() && tokens.dim() == 2 && tokens.numel() > 0 && tokens.scalar_type() == at::kLong,
                   "Decoder: ", name, " must be int64 [B, N] with B and N of at least 1");
  LIGHTHOUSE_CHECK(tokens.device() == device, "Decoder: ", name, " are on ", tokens.device(), ", the model is on ",
                   device, "; move them");
}

void check_documents(std::span<const int64_t> cu_seqlens, const at::Tensor& tokens) {
  if (cu_seqlens.empty()) return;
  LIGHTHOUSE_CHECK(tokens.size(0) == 1, "Decoder: packed documents (cu_seqlens) need a batch of 1, not ",
                   tokens.size(0));
  LIGHTHOUSE_CHECK(cu_seqlens.front() == 0 && cu_seqlens.back() == tokens.size(1), "Decoder: cu_seqlens go from ",
                   cu_seqlens.front(), " to ", cu_seqlens.back(), "; they must go from 0 to the number of tokens, ",
                   tokens.size(1));
  LIGHTHOUSE_CHECK(std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()), "Decoder: cu_seqlens must not decrease");
}

}  // namespace

Decoder::Decoder(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
                 at::ScalarType compute_dtype, at::Device device)
    : model_(model), attention_(attention), compute_dtype_(compute_dtype), device_(device) {
  check_config(model, attention, compute_dtype);
  weights_ = make_weights(model, attention, seed, device, parameters_, buffers_);
}

at::Tensor Decoder::forward(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens) const {
  const Pass pass = begin_pass(tokens, cu_seqlens, nullptr);
  return head(run_layers(tokens, mode, pass));  // [B, N, vocab]
}

at::Tensor Decoder::loss(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                         std::span<const int64_t> cu_seqlens) const {
  check_token_tensor(targets, "targets", device_);
  LIGHTHOUSE_CHECK(targets.sizes() == tokens.sizes(), "Decoder: targets ", targets.sizes(), " and tokens ",
                   tokens.sizes(), " must have the same shape");
  return mean_cross_entropy(forward(tokens, mode, cu_seqlens), targets);
}

at::Tensor Decoder::decode(const at::Tensor& tokens, KvCache& cache) const {
  const at::NoGradGuard no_grad;
  const Pass pass = begin_pass(tokens, {}, &cache);
  LIGHTHOUSE_CHECK(cache.length() == 0 || cache.batch() == tokens.size(0), "Decoder: the cache holds ", cache.batch(),
                   " sequences, tokens ", tokens.size(0));
  const at::Tensor x = run_layers(tokens, AttentionMode::kDense, pass);  // [B, n, dim]
  cache.advance(tokens.size(1));
  return head(x.select(1, -1));  // [B, vocab]
}

Pass Decoder::begin_pass(const at::Tensor& tokens, std::span<const int64_t> cu_seqlens, KvCache* cache) const {
  check_token_tensor(tokens, "tokens", device_);
  check_documents(cu_seqlens, tokens);
  const int64_t seen = cache == nullptr ? 0 : cache->length();
  Rotation rotation = cu_seqlens.empty()
                          ? make_rotation(seen, tokens.size(1), model_.head_dim, model_.rope_theta, device_)
                          : make_rotation(cu_seqlens, model_.head_dim, model_.rope_theta, device_);
  return {model_, compute_dtype_, std::move(rotation), cu_seqlens, cache};
}

at::Tensor Decoder::run_layers(const at::Tensor& tokens, AttentionMode mode, const Pass& pass) const {
  at::Tensor x = at::embedding(weights_.embed_tokens, tokens);  // [B, N, dim]
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    x = decoder_layer(x, layer, weights_.layers[layer], layer_settings(layer, mode), pass);
  }
  return x;
}

at::Tensor Decoder::head(const at::Tensor& x) const {
  const at::Tensor logits = linear(rms_norm(x, weights_.norm, model_.rms_norm_eps), weights_.lm_head, compute_dtype_);
  return logits.to(c10::promoteTypes(compute_dtype_, at::kFloat));
}

std::optional<LighthouseSettings> Decoder::layer_settings(size_t layer, AttentionMode mode) const {
  const std::vector<int64_t>& full = attention_.full_attention_layers;
  const bool is_full = std::find(full.begin(), full.end(), static_cast<int64_t>(layer)) != full.end();
  if (mode == AttentionMode::kDense || is_full) return std::nullopt;
  const int64_t topk = attention_.topk_per_layer.empty() ? attention_.topk : attention_.topk_per_layer[layer];
  return LighthouseSettings{
      {attention_.num_levels, attention_.pooling_factor, topk, attention_.tile_topk, attention_.cover_prefix},
      {attention_.scorer, attention_.dilation}};
}

}  // namespace lighthouse
