#include <algorithm>
#include <tuple>

#include "config/key_table.h"
#include "config/schema.h"
#include "config/validate.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

void validate_limits(const RunConfig& config) {
  for (const Key& key : key_table()) {
    require(within_limits(key, config), key.name, " = ", value_toml(key, config), ": must be ", expectation(key));
  }
}

void validate_layers(const AttentionConfig& attention, int64_t num_layers) {
  validate_layer_list("attention.full_attention_layers", attention.full_attention_layers, num_layers);
  validate_layer_list("attention.window_layers", attention.window_layers, num_layers);
  for (const int64_t layer : attention.window_layers) {
    require(!is_dense_layer(attention, layer), "attention.window_layers: layer ", layer,
            " stands in attention.full_attention_layers too; name it in one of them");
  }
  const auto num_topk = static_cast<int64_t>(attention.topk_per_layer.size());
  require(num_topk == 0 || num_topk == num_layers, "attention.topk_per_layer: has ", num_topk,
          " values; model.num_layers = ", num_layers, ", so give ", num_layers,
          ", or none to use attention.topk everywhere");
}

void validate_method(const AttentionConfig& attention, int64_t seq_len) {
  const int64_t span = attention.span;
  const bool lighthouse = attention.method == AttentionMethod::kLighthouse, windows = !attention.window_layers.empty();
  require(lighthouse || !windows, "attention.window_layers: must be [] with attention.method = \"", attention.method,
          "\", which has no Lighthouse layers for them to stand between");
  if (lighthouse && !windows) {
    require(span == 0, "attention.span = ", span,
            ": means something with attention.method = \"short\" or \"window\" or with attention.window_layers only; "
            "leave it 0");
    return;
  }
  require(span >= 1 && span <= seq_len, "attention.span = ", span, ": must be from 1 to training.seq_len = ", seq_len,
          windows ? " with attention.window_layers"
                  : detail::concat(" with attention.method = \"", attention.method, "\""));
  if (attention.method != AttentionMethod::kShort) return;
  require(seq_len % span == 0, "attention.span = ", span, ": must divide training.seq_len = ", seq_len,
          ", which attention.method = \"short\" cuts into sequences of so many tokens");
  require(
      attention.full_attention_layers.empty(),
      "attention.full_attention_layers: must be [] with attention.method = \"short\", which has no other tokens for "
      "them to attend to");
}

void validate_steps(const TrainingConfig& training, const OptimizerConfig& optimizer) {
  require(training.lighthouse_steps <= training.steps, "training.lighthouse_steps = ", training.lighthouse_steps,
          ": must be at most training.steps = ", training.steps, ", which counts both stages; set both");
  require(optimizer.warmup_steps <= training.steps, "optimizer.warmup_steps = ", optimizer.warmup_steps,
          ": must be at most training.steps = ", training.steps, "; set both");
  require(optimizer.decay_steps <= training.steps, "optimizer.decay_steps = ", optimizer.decay_steps,
          ": must be at most training.steps = ", training.steps);
}

void validate_parallel(const RunConfig& config) {
  const auto& [parallel, training, attention] = std::tie(config.parallel, config.training, config.attention);
  require(parallel.context == 1 ||
              (attention.method == AttentionMethod::kLighthouse && attention.scorer != Scorer::kRandom),
          "parallel.context = ", parallel.context, ": must be 1 with attention.method = \"", attention.method,
          "\" and attention.scorer = \"", attention.scorer, "\"; controls run on whole sequences");
  const int64_t num_heads = config.model.num_heads, num_kv_heads = config.model.num_kv_heads;
  const bool by_heads = num_heads % parallel.context == 0 &&
                        (num_kv_heads % parallel.context == 0 || parallel.context % num_kv_heads == 0);
  require(attention.window_layers.empty() || by_heads, "parallel.context = ", parallel.context,
          ": must divide model.num_heads = ", num_heads, ", and divide model.num_kv_heads = ", num_kv_heads,
          " or be a multiple of it, with attention.window_layers, of "
          "which a process attends to whole heads");
  require(parallel.data <= training.gradient_accumulation, "parallel.data = ", parallel.data,
          ": must be at most training.gradient_accumulation = ", training.gradient_accumulation,
          ", the micro-batches of a step, which are dealt out; set both");
}

void validate_initial(const TrainingConfig& training) {
  require(training.initial_rope == InitialRope::kKept || !training.initial_weights.empty(),
          "training.initial_rope = \"", training.initial_rope,
          "\": means something with training.initial_weights only, the model whose RoPE is changed; leave it \"kept\"");
}

void validate_recompute(const TrainingConfig& training, int64_t num_layers) {
  require(!training.offload || training.recompute == Recompute::kFull,
          "training.offload = true: needs training.recompute = \"full\", not \"", training.recompute,
          "\"; what goes to host memory is the one tensor a layer that full recomputation keeps");
  require(training.recompute_layers == 1 || training.recompute == Recompute::kFull,
          "training.recompute_layers = ", training.recompute_layers, ": needs training.recompute = \"full\", not \"",
          training.recompute, "\", which keeps no inputs alone; leave it 1");
  require(training.recompute_layers <= num_layers, "training.recompute_layers = ", training.recompute_layers,
          ": must be at most model.num_layers = ", num_layers);
  require(training.offload || training.offload_layers == 0, "training.offload_layers = ", training.offload_layers,
          ": needs training.offload = true; without, leave it 0");
  require(training.offload_layers <= num_layers, "training.offload_layers = ", training.offload_layers,
          ": must be at most model.num_layers = ", num_layers, "; 0 is all of them");
}

void validate_offloaded_weights(const TrainingConfig& training) {
  if (!training.offload_weights) return;
  require(training.offload_optimizer,
          "training.offload_weights = true: needs training.offload_optimizer = true; weights pass through the device "
          "with their moments");
  require(training.precision == Precision::kBf16,
          "training.offload_weights = true: needs training.precision = \"bf16\", not \"", training.precision,
          "\", in which products read these weights themselves");
}

void validate_data(const RunConfig& config) {
  require(config.data.packing != Packing::kDocuments || config.training.batch_size == 1,
          "training.batch_size = ", config.training.batch_size,
          ": must be 1 with data.packing = \"documents\"; training.gradient_accumulation makes larger batches");
  require(config.data.path.empty() || config.data.mixture.empty(),
          "data.mixture: stands in the place of data.path = \"", config.data.path, "\"; leave one of them out");
  constexpr int64_t kNumBytes = 256;
  require(config.data.format != CorpusFormat::kText || config.model.vocab_size >= kNumBytes,
          "model.vocab_size = ", config.model.vocab_size,
          ": must be at least 256 with data.format = \"text\", whose tokens are bytes");
}

}  // namespace

void validate(const RunConfig& config) {
  validate_limits(config);
  validate_model(config);
  validate_layers(config.attention, config.model.num_layers);
  validate_method(config.attention, config.training.seq_len);
  validate_steps(config.training, config.optimizer);
  validate_parallel(config);
  validate_initial(config.training);
  validate_recompute(config.training, config.model.num_layers);
  validate_offloaded_weights(config.training);
  validate_data(config);
}

}  // namespace lighthouse
