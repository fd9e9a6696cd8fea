#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "model/decoder_checks.h"
#include "model/embedding.h"
#include "model/head_loss.h"
#include "model/kv_cache.h"
#include "model/layer.h"
#include "model/part_clock.h"
#include "model/pass_plans.h"
#include "model/recompute.h"
#include "ops/gathering.h"

namespace lighthouse {
namespace {

/// Offsets of documents, or of the row of N tokens, with one at every `span` tokens more.
std::vector<int64_t> cut_every(int64_t span, int64_t num_tokens, std::span<const int64_t> cu_seqlens) {
  std::vector<int64_t> cuts;
  for (int64_t begin = 0; begin <= num_tokens; begin += span) cuts.push_back(begin);
  std::vector<int64_t> offsets;
  std::set_union(cuts.begin(), cuts.end(), cu_seqlens.begin(), cu_seqlens.end(), std::back_inserter(offsets));
  return offsets;
}

int64_t longest_document(const std::vector<int64_t>& cu_seqlens) {
  int64_t longest = 0;
  for (size_t i = 1; i < cu_seqlens.size(); ++i) longest = std::max(longest, cu_seqlens[i] - cu_seqlens[i - 1]);
  return longest;
}

bool has_rope(const ModelConfig& model, size_t layer) {
  const std::vector<int64_t>& without = model.layers_without_rope;
  return std::find(without.begin(), without.end(), static_cast<int64_t>(layer)) == without.end();
}

/// What recomputed() runs. A selection that is made in the pass that gathers is made again with it: from what is given
/// gather would read every token once more, and heads would be turned by a pass of their own.
LayerFunction function_of(const Layer& layer, const Pass& pass) {
  const bool again = layer.lighthouse && selects_in_gather(pass.model, layer.lighthouse->score.scorer);
  return [layer, pass, again](const Residual& in, ops::Gathering& selected, ForwardFor use) {
    ops::Gathering not_kept;
    return decoder_layer(in, layer, pass, again ? not_kept : selected, use);
  };
}

}  // namespace

Decoder::Decoder(Unset /*weights*/, const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
                 const Execution& execution)
    : model_(model), attention_(attention), execution_(execution) {
  check_decoder(model, attention, execution);
  weights_ = make_weights(model, attention, seed, execution.device, execution.weights);
  compute_ = ComputeWeights(weights_.matrices, execution.dtype, execution.device);
}

Decoder::Decoder(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed, const Execution& execution)
    : Decoder(Unset(), model, attention, seed, execution) {
  draw_parameters(weights_.values, model.init_std, seed);
}

Decoder Decoder::unset(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
                       const Execution& execution) {
  return {Unset(), model, attention, seed, execution};
}

at::Tensor Decoder::forward(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens) const {
  const Pass pass = begin_pass(tokens, mode, cu_seqlens, nullptr);
  return logits(run_layers(tokens, mode, pass));  // [B, N, vocab]
}

at::Tensor Decoder::loss(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                         std::span<const int64_t> cu_seqlens, const RowShare& share) const {
  check_targets(targets, tokens, execution_.device);
  const Pass pass = begin_pass(tokens, mode, cu_seqlens, nullptr, share);
  return head_loss(run_layers(tokens, mode, pass), weights_.norm, model_.rms_norm_eps, weights_.lm_head,
                   compute_.lm_head, targets);
}

at::Tensor Decoder::token_losses(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                                 std::span<const int64_t> cu_seqlens, const RowShare& share) const {
  const at::NoGradGuard no_grad;
  check_targets(targets, tokens, execution_.device);
  const Pass pass = begin_pass(tokens, mode, cu_seqlens, nullptr, share);
  return head_token_losses(run_layers(tokens, mode, pass), weights_.norm, model_.rms_norm_eps, compute_.lm_head,
                           targets);
}

at::Tensor Decoder::last_logits(const at::Tensor& tokens, AttentionMode mode) const {
  const at::NoGradGuard no_grad;
  const Pass pass = begin_pass(tokens, mode, {}, nullptr);
  return last_logits(run_layers(tokens, mode, pass));
}

Decoder Decoder::with_attention(const AttentionConfig& attention) const {
  check_decoder(model_, attention, execution_);
  LIGHTHOUSE_CHECK(attention.scorer != Scorer::kGla || attention_.scorer == Scorer::kGla,
                   "Decoder: attention.scorer \"gla\" needs gates, which a model made with \"", attention_.scorer,
                   "\" does not have; use norm or dilated");
  Decoder other(*this);
  other.attention_ = attention;
  return other;
}

at::Tensor Decoder::hidden_states(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens,
                                  SelectionTape* recorded) const {
  const at::NoGradGuard no_grad;
  Pass pass = begin_pass(tokens, mode, cu_seqlens, nullptr);
  if (recorded != nullptr) recorded->assign(weights_.layers.size(), at::Tensor());
  pass.recorded = recorded;
  return normed(run_layers(tokens, mode, pass));
}

at::Tensor Decoder::hidden_states(const at::Tensor& tokens, const SelectionTape& held,
                                  std::span<const int64_t> cu_seqlens) const {
  const at::NoGradGuard no_grad;
  LIGHTHOUSE_CHECK(held.size() == weights_.layers.size(), "Decoder: the tape holds selections of ", held.size(),
                   " layers, the model has ", weights_.layers.size());
  Pass pass = begin_pass(tokens, AttentionMode::kLighthouse, cu_seqlens, nullptr);
  PassPlans plans(tokens, pass);
  for (size_t layer = 0; layer < held.size(); ++layer) {
    const bool selects = plans.plan(layer_settings(layer, AttentionMode::kLighthouse)) != nullptr;
    LIGHTHOUSE_CHECK(held[layer].defined() == selects, "Decoder: layer ", layer, selects ? " selects" : " is dense",
                     ", but the tape holds ", selects ? "no selection" : "a selection",
                     " for it; record it with the same attention options");
  }
  pass.held = &held;
  return normed(run_layers(tokens, AttentionMode::kLighthouse, pass));
}

at::Tensor Decoder::head_losses(const at::Tensor& hidden, const at::Tensor& targets) const {
  compute_.refresh();
  return head_losses_of(hidden.to(execution_.dtype), compute_.lm_head, targets);
}

at::Tensor Decoder::decode(const at::Tensor& tokens, KvCache& cache) const {
  const at::NoGradGuard no_grad;
  const Pass pass = begin_pass(tokens, AttentionMode::kDense, {}, &cache);
  LIGHTHOUSE_CHECK(cache.length() == 0 || cache.batch() == tokens.size(0), "Decoder: the cache holds ", cache.batch(),
                   " sequences, tokens ", tokens.size(0));
  const Residual stream = run_layers(tokens, AttentionMode::kDense, pass);  // [B, n, dim]
  cache.advance(tokens.size(1));
  return last_logits(stream);
}

Pass Decoder::begin_pass(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens,
                         KvCache* cache, const RowShare& share) const {
  check_token_tensor(tokens, "tokens", execution_.device);
  const bool shared = share.is_shared();
  const int64_t seq_len = shared ? share.row_len() : tokens.size(1);
  const Span own = shared ? share.own() : Span{0, seq_len};
  LIGHTHOUSE_CHECK(tokens.size(1) == own.size(), "Decoder: ", tokens.size(1), " tokens, of which this rank has ",
                   own.size());
  LIGHTHOUSE_CHECK(!shared || mode == AttentionMode::kDense || attention_.method == AttentionMethod::kLighthouse,
                   "Decoder: ranks cannot share a row with attention.method = \"", attention_.method, "\"");
  check_documents(cu_seqlens, tokens, seq_len);
  compute_.refresh();
  const int64_t seen = cache == nullptr ? 0 : cache->length();
  std::vector<int64_t> offsets(cu_seqlens.begin(), cu_seqlens.end());
  const bool cut = mode == AttentionMode::kLighthouse && attention_.method == AttentionMethod::kShort;
  if (cut) {
    LIGHTHOUSE_CHECK(seq_len % attention_.span == 0, "Decoder: attention.span = ", attention_.span,
                     " must divide the sequence length, ", seq_len);
    offsets = cut_every(attention_.span, seq_len, cu_seqlens);
  }
  const int64_t longest = offsets.empty() ? seen + seq_len : longest_document(offsets);
  if (cache != nullptr) check_cached_rope(model_, longest);
  const RopeFrequencies frequencies = rope_frequencies(model_, longest, execution_.device);
  Rotation rotation = offsets.empty() ? make_rotation(seen + own.begin, own.size(), frequencies)
                                      : make_rotation(offsets, frequencies, own);
  const bool documents = !cu_seqlens.empty();
  Pass pass{model_,
            std::move(rotation),
            documents ? std::move(offsets) : std::vector<int64_t>(),
            cut && !documents ? attention_.span : 0,
            execution_.deterministic,
            execution_.recompute != Recompute::kSelective,
            cache};
  pass.share = share;
  return pass;
}

Residual Decoder::run_layers(const at::Tensor& tokens, AttentionMode mode, const Pass& pass) const {
  Residual stream{embed(tokens, weights_.embed_tokens, compute_.embed_tokens), std::nullopt};  // [B, N, dim]
  const bool recomputes = execution_.recompute == Recompute::kFull && at::GradMode::is_enabled();
  const auto offload_layers = static_cast<size_t>(execution_.offload_layers);
  const auto stash = recomputes && offload_layers > 0 ? std::make_shared<HostStash>() : nullptr;
  const auto recompute_layers = static_cast<size_t>(execution_.recompute_layers);
  std::vector<LayerFunction> together;  // that are computed again from one input
  PassPlans plans(tokens, pass);
  for (size_t index = 0; index < weights_.layers.size(); ++index) {
    Layer layer{index,
                weights_.layers[index],
                compute_.layers[index],
                layer_settings(index, mode),
                nullptr,
                layer_window(index, mode),
                nullptr,
                has_rope(model_, index)};
    layer.row = plans.row(layer.lighthouse);
    layer.plan = layer.row != nullptr ? layer.row->part : plans.plan(layer.lighthouse);
    if (layer.plan == nullptr) layer.lighthouse.reset();
    ops::Gathering selected;
    if (pass.held != nullptr && layer.lighthouse) {
      selected = ops::invert_selection("Decoder", (*pass.held)[index], layer.plan, /*check=*/true);
    }
    if (recomputes) {
      const size_t first = index - together.size();
      together.push_back(function_of(layer, pass));
      if (together.size() < recompute_layers && index + 1 < weights_.layers.size()) continue;
      stream = recomputed(std::move(stream), std::exchange(together, {}), stash, first < offload_layers);
    } else {
      stream = decoder_layer(stream, layer, pass, selected);
    }
    if (pass.recorded != nullptr) (*pass.recorded)[index] = selected.selection;
  }
  return stream;
}

at::Tensor Decoder::normed(const Residual& stream) const {
  enter_part(Part::kOther);
  return rms_norm(stream.x + *stream.update, weights_.norm, model_.rms_norm_eps);
}

at::Tensor Decoder::logits(const Residual& stream) const {
  const at::ScalarType dtype = execution_.dtype;
  LIGHTHOUSE_CHECK(!at::GradMode::is_enabled() || execution_.weights == WeightPlace::kDevice,
                   "Decoder: logits have no gradient where the matrices are on the host; call loss, or use "
                   "at::NoGradGuard");
  const at::Tensor head = at::GradMode::is_enabled() ? weights_.lm_head.to(dtype) : compute_.lm_head;
  return at::linear(normed(stream).to(dtype), head).to(c10::promoteTypes(dtype, at::kFloat));
}

at::Tensor Decoder::last_logits(const Residual& stream) const {
  return logits({stream.x.select(1, -1), stream.update->select(1, -1)});  // [B, vocab]
}

std::vector<at::Tensor> Decoder::casts() const {
  std::vector<at::Tensor> casts;
  for (const auto& [name, value] : values()) casts.push_back(compute_.copy_of(value));
  return casts;
}

std::optional<LighthouseSettings> Decoder::layer_settings(size_t layer, AttentionMode mode) const {
  const std::optional<int64_t> topk = lighthouse_topk(attention_, static_cast<int64_t>(layer));
  if (mode == AttentionMode::kDense || !topk) return std::nullopt;
  return LighthouseSettings{
      {attention_.num_levels, attention_.pooling_factor, *topk, attention_.tile_topk, attention_.cover_prefix},
      {attention_.scorer, attention_.dilation}};
}

std::vector<Span> Decoder::token_spans(int64_t seq_len, std::span<const int64_t> cu_seqlens, int64_t num_ranks) const {
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    const auto settings = layer_settings(layer, AttentionMode::kLighthouse);
    if (!settings) continue;
    const SequencePlan plan = make_plan(settings->selection, seq_len, cu_seqlens, "Decoder");
    if (!plan.is_full()) return lighthouse::token_spans(plan, num_ranks);
  }
  LIGHTHOUSE_CHECK(num_ranks <= seq_len, "Decoder: ", seq_len, " tokens for ", num_ranks, " ranks; each needs one");
  return equal_spans(seq_len, num_ranks);
}

int64_t Decoder::layer_window(size_t layer, AttentionMode mode) const {
  return mode == AttentionMode::kLighthouse ? window_span(attention_, static_cast<int64_t>(layer)) : 0;
}

}  // namespace lighthouse
