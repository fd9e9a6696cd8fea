#include "config/key_table.h"

#include <algorithm>

#include "config/schema.h"

namespace lighthouse {
namespace {

// Binds a key to the field of the same name, so that the two cannot drift apart.
#define KEY(path, limits, help)                                                      \
  Key {                                                                              \
#path, [](RunConfig & config) -> FieldRef { return &config.path; }, limits, help \
  }

// Sizes are capped so that products of them, such as the number of parameters, fit int64.
constexpr int64_t kMaxSize = int64_t{1} << 20;

template <Worded E>
NameChoice choice_of() {
  const auto all = words<E>();
  return {{all.begin(), all.end()}};
}

std::vector<Key> model_keys() {
  return {
      Key{kPresetKey, [](RunConfig& config) -> FieldRef { return PresetField{&config.model}; },
          NameChoice{model_preset_names()}, "sets the whole section; its other keys then change single values"},
      KEY(model.family, choice_of<ModelFamily>(),
          "as transformers names them; qwen2 has biases of q, k and v, qwen3 RMSNorm of q and k before RoPE"),
      KEY(model.vocab_size, (IntegerRange{1, kMaxSize}), "tokens of the vocabulary; 256 for bytes"),
      KEY(model.dim, (IntegerRange{1, kMaxSize}), "channels of the residual stream"),
      KEY(model.num_layers, (IntegerRange{1, 1024}), "decoder blocks"),
      KEY(model.num_heads, (IntegerRange{1, 4096}), "query heads"),
      KEY(model.num_kv_heads, (IntegerRange{1, 4096}), "key/value heads; divides num_heads"),
      KEY(model.head_dim, (IntegerRange{2, 1024}), "channels per head; even"),
      KEY(model.ffn_dim, (IntegerRange{1, kMaxSize}), "hidden channels of SwiGLU"),
      KEY(model.rope_theta, (NumberRange{.min = 1.0}), "base of the rotary position embedding"),
      KEY(model.rope_scaling, choice_of<RopeScaling>(),
          "RoPE for a longer context than the model was first trained with"),
      KEY(model.rope_factor, (NumberRange{.min = 1.0}), "scaled RoPE: by how much the context became longer"),
      KEY(model.rope_original_len, (IntegerRange{0, int64_t{1} << 30}),
          "dynamic, yarn, llama3: tokens of the context before"),
      KEY(model.rope_low_freq_factor, (NumberRange{.min = 0, .min_excluded = true}),
          "llama3: waves longer than rope_original_len over this become rope_factor times as long"),
      KEY(model.rope_high_freq_factor, (NumberRange{.min = 0, .min_excluded = true}),
          "llama3: waves shorter than rope_original_len over this stay"),
      KEY(model.rope_beta_fast, (NumberRange{.min = 0, .min_excluded = true}),
          "yarn: waves that turn more often than this in rope_original_len tokens stay"),
      KEY(model.rope_beta_slow, (NumberRange{.min = 0, .min_excluded = true}),
          "yarn: waves that turn less often become rope_factor times as long"),
      KEY(model.rope_attention_factor, (NumberRange{.min = 0}),
          "yarn: factor of cosines and sines; 0: 0.1 ln(rope_factor) + 1"),
      KEY(model.layers_without_rope, (IntegerRange{0}), "smollm3: layers whose heads do not turn, from 0"),
      KEY(model.rms_norm_eps, (NumberRange{.min = 0, .max = 1, .min_excluded = true}), "epsilon of RMSNorm"),
      KEY(model.tie_embeddings, AnyValue{}, "the output head is the embedding matrix"),
      KEY(model.init_std, (NumberRange{.min = 0, .max = 1, .min_excluded = true}),
          "standard deviation of the initial weights"),
  };
}

std::vector<Key> attention_keys() {
  return {
      KEY(attention.method, choice_of<AttentionMethod>(),
          "of stage 1; controls: short, dense in sequences of span tokens; window, to the latest span tokens"),
      KEY(attention.span, (IntegerRange{0}),
          "tokens of methods short (it divides training.seq_len) and window, and of window_layers"),
      KEY(attention.num_levels, (IntegerRange{1, 8}), "levels of the pyramid; 1 is plain attention"),
      KEY(attention.pooling_factor, (IntegerChoice{{2, 4, 8, 16}}), "entries under one of the next level"),
      KEY(attention.topk, (IntegerRange{1}), "entries expanded per level, over the whole sequence"),
      KEY(attention.tile_topk, (IntegerRange{1}), "the share of topk that one tile is given"),
      KEY(attention.cover_prefix, AnyValue{}, "always expand the first entry of every level"),
      KEY(attention.scorer, choice_of<Scorer>(), "how tokens are scored; random is a control for experiments"),
      KEY(attention.dilation, (IntegerRange{1}), "residue classes of the dilated and gla scorers"),
      KEY(attention.full_attention_layers, (IntegerRange{0}), "layers that are dense in stage 1 too, from 0"),
      KEY(attention.window_layers, (IntegerRange{0}),
          "layers of method lighthouse that attend to the latest span tokens in stage 1 instead, from 0"),
      KEY(attention.topk_per_layer, (IntegerRange{1}), "one topk for each layer instead of topk"),
  };
}

std::vector<Key> training_keys() {
  return {
      KEY(training.steps, (IntegerRange{1}), "optimizer steps of both stages together"),
      KEY(training.lighthouse_steps, (IntegerRange{0}), "steps of stage 1; the rest is dense"),
      KEY(training.seq_len, (IntegerRange{1, int64_t{1} << 30}), "tokens per sequence"),
      KEY(training.batch_size, (IntegerRange{1, kMaxSize}), "sequences per micro-batch"),
      KEY(training.gradient_accumulation, (IntegerRange{1, kMaxSize}),
          "micro-batches per optimizer step, of all processes together"),
      KEY(training.accumulation, choice_of<Accumulation>(),
          "order in which their gradients are added; tree: the same bits for 1, 2, 4, 8, ... parallel.data"),
      KEY(training.seed, (IntegerRange{0}), "seed of the initial weights"),
      KEY(training.initial_weights, AnyValue{}, "folder of a Hugging Face model to start from; none: random weights"),
      KEY(training.initial_rope, choice_of<InitialRope>(),
          "of that model: kept as its folder says, or changed to that of [model], for a longer context"),
      KEY(training.precision, choice_of<Precision>(), "of matrix products and attention"),
      KEY(training.device, choice_of<DeviceChoice>(), "where to run"),
      KEY(training.threads, (IntegerRange{0, 1024}), "CPU threads; 0: one per core"),
      KEY(training.recompute, choice_of<Recompute>(), "what backward computes again instead of keeping it"),
      KEY(training.recompute_layers, (IntegerRange{1, 1024}),
          "full: layers computed again from one kept input, all but the last of them twice"),
      KEY(training.offload, AnyValue{}, "keep layer inputs in host memory; needs recompute = full"),
      KEY(training.offload_layers, (IntegerRange{0, 1024}), "offload: of how many layers, the first ones; 0: of all"),
      KEY(training.offload_optimizer, AnyValue{}, "keep the moments of AdamW in host memory"),
      KEY(training.offload_weights, AnyValue{},
          "and the fp32 weights, of which the device has bf16 copies; needs offload_optimizer"),
      KEY(training.deterministic, AnyValue{}, "repeat the bits of a run on a GPU, at a price in attention"),
  };
}

std::vector<Key> parallel_keys() {
  return {
      KEY(parallel.data, (IntegerRange{0, kMaxSize}),
          "groups of processes that micro-batches are dealt to; 0: as many as were started"),
      KEY(parallel.context, (IntegerRange{1, kMaxSize}), "processes that share each sequence"),
      KEY(parallel.timeout, (IntegerRange{1, 86400}), "seconds that a process waits for the others"),
  };
}

std::vector<Key> optimizer_keys() {
  return {
      KEY(optimizer.learning_rate, (NumberRange{.min = 0, .min_excluded = true}), "highest rate of the schedule"),
      KEY(optimizer.beta1, (NumberRange{.min = 0, .max = 1, .max_excluded = true}), "decay of the first moment"),
      KEY(optimizer.beta2, (NumberRange{.min = 0, .max = 1, .max_excluded = true}), "decay of the second moment"),
      KEY(optimizer.eps, (NumberRange{.min = 0, .max = 1, .min_excluded = true}), "epsilon of AdamW"),
      KEY(optimizer.weight_decay, (NumberRange{.min = 0}), "on matrices; norms are not decayed"),
      KEY(optimizer.warmup_steps, (IntegerRange{0}), "steps of linear warm-up"),
      KEY(optimizer.schedule, choice_of<Schedule>(), "decay of the learning rate"),
      KEY(optimizer.min_learning_rate_ratio, (NumberRange{.min = 0, .max = 1}), "last learning rate over the highest"),
      KEY(optimizer.decay_steps, (IntegerRange{0}), "wsd: steps of the final decay; 0: a tenth of all"),
      KEY(optimizer.clip_norm, (NumberRange{.min = 0}), "limit of the global gradient norm; 0: none"),
  };
}

std::vector<Key> data_keys() {
  return {
      KEY(data.path, AnyValue{}, "text file, folder, Megatron prefix (PATH.bin and PATH.idx), or NAME.ds of datatrove"),
      KEY(data.mixture, AnyValue{},
          "several corpora in the place of path, as tokens/web/train=0.7,tokens/code/train=0.3"),
      KEY(data.format, choice_of<CorpusFormat>(), "format of the corpus"),
      KEY(data.extensions, AnyValue{}, "folders: file endings to read, as .h,.hpp; none: every file"),
      KEY(data.packing, choice_of<Packing>(), "documents: attention stays inside them"),
      KEY(data.validation_fraction, (NumberRange{.min = 0, .max = 1, .max_excluded = true}),
          "share of the tokens, from the end, kept for validation"),
      KEY(data.validation_path, AnyValue{}, "a corpus of its own instead of validation_fraction"),
      KEY(data.seed, (IntegerRange{0}), "seed of the shuffling"),
  };
}

std::vector<Key> output_keys() {
  return {
      KEY(validation.interval, (IntegerRange{0}), "steps between validations; 0: only at the end"),
      KEY(validation.sequences, (IntegerRange{1, kMaxSize}), "sequences read each time, spread over the held-out text"),
      KEY(checkpoint.interval, (IntegerRange{0}), "steps between checkpoints; 0: only at the end and on a signal"),
      KEY(checkpoint.keep, (IntegerRange{1, kMaxSize}), "newest checkpoints that stay"),
      KEY(checkpoint.asynchronous, AnyValue{}, "write from a copy in host memory while training goes on"),
      KEY(logging.run_dir, AnyValue{}, "folder of metrics, TensorBoard events and checkpoints"),
      KEY(logging.interval, (IntegerRange{1}), "steps between lines of metrics.jsonl"),
      KEY(logging.timing_interval, (IntegerRange{0}), "steps between those whose time is measured by part; 0: never"),
      KEY(logging.tensorboard, AnyValue{}, "write TensorBoard events"),
      KEY(logging.sample_tokens, (IntegerRange{0, kMaxSize}), "tokens of text sampled at the end; 0: none"),
  };
}
#undef KEY

std::vector<Key> make_table() {
  std::vector<Key> table;
  for (auto* keys :
       {model_keys, attention_keys, training_keys, parallel_keys, optimizer_keys, data_keys, output_keys}) {
    for (Key& key : keys()) table.push_back(std::move(key));
  }
  return table;
}

}  // namespace

const std::vector<Key>& key_table() {
  static const std::vector<Key> table = make_table();
  return table;
}

const Key* find_key(const std::string& name) {
  const auto& table = key_table();
  const auto found = std::find_if(table.begin(), table.end(), [&](const Key& key) { return key.name == name; });
  return found == table.end() ? nullptr : &*found;
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const Key& key : key_table()) {
    if (names.empty() || names.back() != key.section()) names.push_back(key.section());
  }
  return names;
}

std::string nearest_key(const std::string& name) {
  const std::string leaf = name.substr(name.rfind('.') + 1);  // all of it where there is no dot: npos + 1 is 0
  std::vector<std::string> names;
  for (const Key& key : key_table()) {
    if (key.leaf() == leaf) return key.name;
    names.push_back(key.name);
  }
  const std::string whole = nearest_name(name, names);
  if (!whole.empty()) return whole;
  for (std::string& known : names) known.erase(0, known.find('.') + 1);
  const std::string near_leaf = nearest_name(leaf, names);
  const auto found = std::find(names.begin(), names.end(), near_leaf);
  return found == names.end() ? "" : key_table()[static_cast<size_t>(found - names.begin())].name;
}

}  // namespace lighthouse
