// What follows from a configuration in numbers.
#include <algorithm>
#include <limits>

#include "config/schema.h"

namespace lighthouse {
namespace {

bool contains(const std::vector<int64_t>& layers, int64_t layer) {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

}  // namespace

int64_t layer_parameters(const ModelConfig& model) {
  const int64_t heads_dim = model.head_dim * (2 * model.num_heads + 2 * model.num_kv_heads);  // q, o, k, v
  const int64_t norms = 2 * model.dim + (model.qk_norm() ? 2 * model.head_dim : 0);
  const int64_t biases = model.qkv_bias() ? model.head_dim * (model.num_heads + 2 * model.num_kv_heads) : 0;
  return model.dim * (heads_dim + 3 * model.ffn_dim) + norms + biases;
}

int64_t num_parameters(const ModelConfig& model) {
  const int64_t embeddings = model.vocab_size * model.dim * (model.tie_embeddings ? 1 : 2);
  return model.num_layers * layer_parameters(model) + embeddings + model.dim;
}

bool is_dense_layer(const AttentionConfig& attention, int64_t layer) {
  return contains(attention.full_attention_layers, layer);
}

int64_t window_span(const AttentionConfig& attention, int64_t layer) {
  const bool window = attention.method == AttentionMethod::kWindow ? !is_dense_layer(attention, layer)
                                                                   : contains(attention.window_layers, layer);
  return window ? attention.span : 0;
}

std::optional<int64_t> lighthouse_topk(const AttentionConfig& attention, int64_t layer) {
  if (attention.method != AttentionMethod::kLighthouse || is_dense_layer(attention, layer) ||
      window_span(attention, layer) > 0) {
    return std::nullopt;
  }
  return attention.topk_per_layer.empty() ? attention.topk : attention.topk_per_layer.at(static_cast<size_t>(layer));
}

bool selects_in_gather(const ModelConfig& model, Scorer scorer) { return scorer == Scorer::kNorm && !model.qk_norm(); }

bool has_lighthouse_stage(const RunConfig& config) {
  return config.training.lighthouse_steps > 0 && config.attention.method == AttentionMethod::kLighthouse;
}

bool is_last_of_stage(const TrainingConfig& training, int64_t step) {
  return step == training.steps || step == training.lighthouse_steps;
}

bool is_validated(const RunConfig& config, int64_t step) {
  const int64_t interval = config.validation.interval;
  return (interval > 0 && step % interval == 0) || is_last_of_stage(config.training, step);
}

int64_t num_validations(const RunConfig& config) {
  const int64_t steps = config.training.steps, stage_1 = config.training.lighthouse_steps;
  const int64_t interval =
      config.validation.interval > 0 ? config.validation.interval : std::numeric_limits<int64_t>::max();
  const bool at_switch = stage_1 > 0 && stage_1 < steps && stage_1 % interval != 0;
  return steps / interval + int64_t{steps % interval != 0} + int64_t{at_switch};
}

int64_t times_recomputed(const RunConfig& config, int64_t layer) {
  if (config.training.recompute != Recompute::kFull) return 0;
  const bool is_last = (layer + 1) % config.training.recompute_layers == 0 || layer + 1 == config.model.num_layers;
  return is_last ? 1 : 2;
}

int64_t offloaded_layers(const RunConfig& config) {
  const TrainingConfig& training = config.training;
  if (!training.offload) return 0;
  return training.offload_layers == 0 ? config.model.num_layers : training.offload_layers;
}

int64_t offloaded_inputs(const RunConfig& config) {
  const int64_t each = config.training.recompute_layers;
  return (offloaded_layers(config) + each - 1) / each;
}

int64_t sequences_per_step(const TrainingConfig& training) {
  return training.batch_size * training.gradient_accumulation;
}

int64_t tokens_per_step(const TrainingConfig& training) { return sequences_per_step(training) * training.seq_len; }

}  // namespace lighthouse
