#include "plan/shape.h"

#include <algorithm>
#include <map>
#include <optional>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "lighthouse/geometry.h"

namespace lighthouse {
namespace {

/// Tokens under the rows that a tile gathers below the coarsest level: the p children of each expanded entry, level by
/// level, as tile_rows counts them.
int64_t tokens_read(const TileShape& tile, const Pyramid& pyramid) {
  int64_t tokens = 0;
  int64_t candidates = tile.num_coarse;
  for (int level = pyramid.num_levels - 1; level >= 1; --level) {
    candidates = std::min(tile.budget, candidates) << pyramid.log2_pool;
    tokens += candidates * pyramid.window(level - 1);
  }
  return tokens;
}

int64_t causal_pairs(int64_t rows) { return rows * (rows + 1) / 2; }

/// Attends to all N tokens, `pairs` of them.
LayerShape dense_shape(const RunConfig& config, int64_t pairs) {
  return {false, config.training.seq_len, pairs, 0, 0, 0};
}

/// Pairs of a layer without Lighthouse attention.
int64_t token_pairs(const RunConfig& config, bool stage_1, int64_t layer) {
  const AttentionConfig& attention = config.attention;
  const int64_t seq_len = config.training.seq_len;
  const int64_t span = std::min(attention.span, seq_len);
  if (!stage_1 || attention.method == "lighthouse" || is_dense_layer(attention, layer)) return causal_pairs(seq_len);
  if (attention.method == "short") return seq_len / span * causal_pairs(span);
  return causal_pairs(span) + (seq_len - span) * span;
}

LayerShape lighthouse_shape(const RunConfig& config, int64_t topk) {
  const AttentionConfig& attention = config.attention;
  const SelectionConfig selection{attention.num_levels, attention.pooling_factor, topk, attention.tile_topk,
                                  attention.cover_prefix};
  const SequencePlan plan = make_plan(selection, config.training.seq_len, {}, "plan");
  if (plan.is_full()) return dense_shape(config, causal_pairs(config.training.seq_len));
  const Pyramid& pyramid = plan.documents.front().pyramid;
  int64_t read = 0;
  for (const Tile& tile : plan.tiles) read += tokens_read(tile.shape, pyramid);
  return {true, plan.gathered_len, causal_pairs(plan.gathered_len), plan.num_slots, pyramid.num_coarse(), read};
}

}  // namespace

std::vector<LayerShape> layer_shapes(const RunConfig& config, bool lighthouse) {
  std::map<int64_t, LayerShape> by_topk;
  std::vector<LayerShape> layers;
  for (int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const std::optional<int64_t> topk = lighthouse_topk(config.attention, layer);
    if (!lighthouse || !topk) {
      layers.push_back(dense_shape(config, token_pairs(config, lighthouse, layer)));
      continue;
    }
    if (!by_topk.contains(*topk)) by_topk.emplace(*topk, lighthouse_shape(config, *topk));
    layers.push_back(by_topk.at(*topk));
  }
  return layers;
}

bool is_countable(const RunConfig& config) {
  constexpr double kMostElements = 1LL << 55;
  const ModelConfig& model = config.model;
  const auto heads = static_cast<double>(2 * model.num_heads + 2 * model.num_kv_heads);
  const double channels =
      static_cast<double>(model.dim + model.ffn_dim + model.vocab_size) + heads * static_cast<double>(model.head_dim);
  return static_cast<double>(config.training.batch_size) * static_cast<double>(config.training.seq_len) * channels *
             static_cast<double>(model.num_layers) <
         kMostElements;
}

Sizes::Sizes(const RunConfig& config)
    : batch(config.training.batch_size),
      tokens(is_countable(config) ? batch * config.training.seq_len : 0),
      dim(config.model.dim),
      ffn(config.model.ffn_dim),
      q_channels(config.model.num_heads * config.model.head_dim),
      kv_channels(config.model.num_kv_heads * config.model.head_dim),
      qkv(q_channels + 2 * kv_channels),
      vocab(config.model.vocab_size),
      element(config.training.precision == "bf16" ? 2 : 4) {
  LIGHTHOUSE_CHECK(is_countable(config), "plan: training.batch_size = ", batch,
                   " sequences of training.seq_len = ", config.training.seq_len,
                   " tokens are more than any machine holds; use less of either");
}

int64_t layer_matrices(const Sizes& sizes) { return sizes.dim * (sizes.qkv + sizes.q_channels + 3 * sizes.ffn); }

}  // namespace lighthouse
