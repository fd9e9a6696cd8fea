#include "plan/shape.h"

#include <algorithm>
#include <map>
#include <optional>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "lighthouse/geometry.h"
#include "parallel/pieces.h"

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
LayerShape dense_shape(const RunConfig& config, int64_t pairs, const std::vector<Span>& tokens) {
  const int64_t seq_len = config.training.seq_len;
  return {false, seq_len, pairs, 0, 0, 0, tokens, tokens, AttendedBlocks(head_spans_of(config), {seq_len})};
}

SelectionConfig selection_of(const AttentionConfig& attention, int64_t topk) {
  return {attention.num_levels, attention.pooling_factor, topk, attention.tile_topk, attention.cover_prefix};
}

std::vector<Span> rows_of_ranks(const SequencePlan& plan, const std::vector<Span>& tokens) {
  if (tokens.size() == 1) return {{0, plan.gathered_len}};
  return context_plan(plan, tokens, 0).rows;
}

/// Pairs of a layer without Lighthouse attention.
int64_t token_pairs(const RunConfig& config, bool stage_1, int64_t layer) {
  const AttentionConfig& attention = config.attention;
  const int64_t seq_len = config.training.seq_len;
  if (!stage_1) return causal_pairs(seq_len);
  if (attention.method == AttentionMethod::kShort) return seq_len / attention.span * causal_pairs(attention.span);
  const int64_t span = std::min(window_span(attention, layer), seq_len);
  return span == 0 ? causal_pairs(seq_len) : causal_pairs(span) + (seq_len - span) * span;
}

LayerShape lighthouse_shape(const RunConfig& config, int64_t topk, const std::vector<Span>& tokens) {
  const SequencePlan plan = make_plan(selection_of(config.attention, topk), config.training.seq_len, {}, "plan");
  if (plan.is_full()) return dense_shape(config, causal_pairs(config.training.seq_len), tokens);
  const Pyramid& pyramid = plan.documents.front().pyramid;
  int64_t read = 0;
  for (const Tile& tile : plan.tiles) read += tokens_read(tile.shape, pyramid);
  return {true,           plan.gathered_len,           causal_pairs(plan.gathered_len),
          plan.num_slots, pyramid.num_coarse(),        read,
          tokens,         rows_of_ranks(plan, tokens), AttendedBlocks(head_spans_of(config), {plan.gathered_len})};
}

}  // namespace

HeadSpans head_spans_of(const RunConfig& config) {
  return {config.model.num_heads, config.model.num_kv_heads, config.parallel.context};
}

MeshShape mesh_of(const ParallelConfig& parallel) { return {std::max<int64_t>(parallel.data, 1), parallel.context, 0}; }

RunConfig on_one_rank(RunConfig config) {
  config.parallel = {};
  return config;
}

int64_t longest(const std::vector<Span>& spans) {
  int64_t most = 0;
  for (const Span& span : spans) most = std::max(most, span.size());
  return most;
}

int64_t LayerShape::most_attended(int64_t per_query, int64_t per_key) const {
  int64_t most = 0;
  for (size_t rank = 0; rank < attended.query.size(); ++rank) {
    most = std::max(most, attended.query[rank].rows.size() * per_query + attended.key[rank].rows.size() * per_key);
  }
  return most;
}

std::vector<Span> token_spans_of(const RunConfig& config) {
  const int64_t seq_len = config.training.seq_len, num_ranks = config.parallel.context;
  if (num_ranks == 1) return {{0, seq_len}};
  for (int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const std::optional<int64_t> topk = lighthouse_topk(config.attention, layer);
    if (!topk) continue;
    const SequencePlan plan = make_plan(selection_of(config.attention, *topk), seq_len, {}, "plan");
    if (!plan.is_full()) return token_spans(plan, num_ranks);
  }
  return equal_spans(seq_len, num_ranks);
}

std::vector<LayerShape> layer_shapes(const RunConfig& config, bool lighthouse) {
  const std::vector<Span> tokens = token_spans_of(config);
  std::map<int64_t, LayerShape> by_topk;
  std::vector<LayerShape> layers;
  for (int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const std::optional<int64_t> topk = lighthouse_topk(config.attention, layer);
    if (!lighthouse || !topk) {
      layers.push_back(dense_shape(config, token_pairs(config, lighthouse, layer), tokens));
      continue;
    }
    if (!by_topk.contains(*topk)) by_topk.emplace(*topk, lighthouse_shape(config, *topk, tokens));
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

std::vector<int64_t> parameter_sizes(const ModelConfig& model) {
  const int64_t dim = model.dim, kv_channels = model.num_kv_heads * model.head_dim;
  const int64_t q_channels = model.num_heads * model.head_dim;
  std::vector<int64_t> sizes = {model.vocab_size * dim};
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    const int64_t q = q_channels * dim, kv = kv_channels * dim, ffn = model.ffn_dim * dim;
    sizes.insert(sizes.end(), {dim, q, kv, kv});
    if (model.qkv_bias()) sizes.insert(sizes.end(), {q_channels, kv_channels, kv_channels});
    sizes.push_back(q);
    if (model.qk_norm()) sizes.insert(sizes.end(), {model.head_dim, model.head_dim});
    sizes.insert(sizes.end(), {dim, ffn, ffn, ffn});
  }
  sizes.push_back(dim);
  if (!model.tie_embeddings) sizes.push_back(model.vocab_size * dim);
  return sizes;
}

std::vector<int64_t> owned_parameters(const RunConfig& config) {
  const int64_t num_ranks = mesh_of(config.parallel).size();
  if (num_ranks == 1) return {num_parameters(config.model)};
  const std::vector<Piece> pieces = pieces_of(parameter_sizes(config.model));
  return owned_elements(pieces, owners_of(pieces, num_ranks), num_ranks);
}

int64_t most_owned_parameters(const RunConfig& config) {
  const std::vector<int64_t> owned = owned_parameters(config);
  return *std::max_element(owned.begin(), owned.end());
}

Sizes::Sizes(const RunConfig& config)
    : batch(config.training.batch_size),
      tokens(is_countable(config) ? batch * longest(token_spans_of(config)) : 0),
      dim(config.model.dim),
      ffn(config.model.ffn_dim),
      q_channels(config.model.num_heads * config.model.head_dim),
      kv_channels(config.model.num_kv_heads * config.model.head_dim),
      qkv(q_channels + 2 * kv_channels),
      row_groups(head_spans_of(config).num_row_groups),
      own_heads(head_spans_of(config).query.front().size()),
      own_kv_heads(head_spans_of(config).key.front().size()),
      own_q_channels(own_heads * config.model.head_dim),
      own_kv_channels(own_kv_heads * config.model.head_dim),
      vocab(config.model.vocab_size),
      element(config.training.precision == Precision::kBf16 ? 2 : 4) {
  LIGHTHOUSE_CHECK(is_countable(config), "plan: training.batch_size = ", batch,
                   " sequences of training.seq_len = ", config.training.seq_len,
                   " tokens are more than any machine holds; use less of either");
}

int64_t layer_matrices(const Sizes& sizes) { return sizes.dim * (sizes.qkv + sizes.q_channels + 3 * sizes.ffn); }

}  // namespace lighthouse
