#include "model/huggingface_config.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "model/huggingface_rope.h"
#include "model/json_keys.h"

namespace lighthouse {
namespace {
using nlohmann::json;

/// What transformers calls a family, and takes where a config.json does not say.
struct FamilyDefaults {
  const char* architecture;
  int64_t num_kv_heads;  ///< 0: as many as heads
  int64_t head_dim;      ///< 0: dim over heads
  double rope_theta;
  bool tied;
};

FamilyDefaults defaults_of(ModelFamily family) {
  switch (family) {
    case ModelFamily::kLlama:
      return {"LlamaForCausalLM", 0, 0, 1e4, false};
    case ModelFamily::kMistral:
      return {"MistralForCausalLM", 8, 0, 1e4, false};
    case ModelFamily::kQwen2:
      return {"Qwen2ForCausalLM", 32, 0, 1e4, false};
    case ModelFamily::kQwen3:
      return {"Qwen3ForCausalLM", 32, 128, 1e4, false};
    case ModelFamily::kSmolLm3:
      return {"SmolLM3ForCausalLM", 4, 0, 2e6, true};
  }
  throw InvalidArgument("a family that is none");
}

ModelFamily known_family(const JsonKeys& keys) {
  // By what they have, whatever they are called.
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (keys.has(key)) keys.refuse(key, "dense feed-forward layers are, mixtures of experts (MoE) not");
  }
  if (keys.has("kv_lora_rank")) {
    keys.refuse("kv_lora_rank", "heads of one projection are, latent attention (MLA) not", /*in_python=*/false);
  }
  const std::optional<ModelFamily> family = find_word<ModelFamily>(keys.get<std::string>("model_type"));
  if (family) return *family;
  std::string names;
  for (const std::string_view known : words<ModelFamily>()) names += (names.empty() ? "" : ", ") + json(known).dump();
  keys.refuse("model_type", names + " are");
}

void refuse_windows(const JsonKeys& keys, ModelFamily family) {
  keys.require<bool>("use_sliding_window", false);
  const bool window = keys.has("sliding_window") || !keys.is_null("sliding_window");
  if (family == ModelFamily::kMistral && window) {
    keys.refuse("sliding_window", "only null is, which is not what a Mistral model has where it is left out (4096)",
                /*in_python=*/false);
  }
  for (const json& type : keys.get<json::array_t>("layer_types", {})) {
    if (type != "full_attention") keys.refuse("layer_types", "only \"full_attention\" is");
  }
}

void require_known_computation(const JsonKeys& keys) {
  keys.require<std::string>("hidden_act", "silu");
  keys.require<bool>("attention_bias", false);
  keys.require<bool>("mlp_bias", false);
}

/// no_rope_layers has a 1 for each layer with RoPE; where it is left out every so many layers one is without.
std::vector<int64_t> parse_layers_without_rope(const JsonKeys& keys, int64_t num_layers) {
  std::vector<int64_t> layers;
  if (!keys.has("no_rope_layers")) {
    const auto interval = keys.get<int64_t>("no_rope_layer_interval", 4);
    LIGHTHOUSE_CHECK(interval >= 1, "'", keys.source(), "': no_rope_layer_interval = ", interval,
                     " must be at least 1");
    for (int64_t layer = interval - 1; layer < num_layers; layer += interval) layers.push_back(layer);
    return layers;
  }
  const auto has_rope = keys.get<json::array_t>("no_rope_layers");
  LIGHTHOUSE_CHECK(static_cast<int64_t>(has_rope.size()) >= num_layers, "'", keys.source(), "': no_rope_layers has ",
                   has_rope.size(), " values for num_hidden_layers = ", num_layers);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (has_rope[static_cast<size_t>(layer)] == 0) layers.push_back(layer);
  }
  return layers;
}

json no_rope_layers(const ModelConfig& model) {
  std::vector<int64_t> has_rope(static_cast<size_t>(model.num_layers), 1);
  for (const int64_t layer : model.layers_without_rope) has_rope.at(static_cast<size_t>(layer)) = 0;
  return has_rope;
}

/// Keys that some families have, all saying that there is nothing of the kind.
void add_family_keys(const ModelConfig& model, json& config) {
  const ModelFamily family = model.family;
  if (family == ModelFamily::kMistral) config["sliding_window"] = nullptr;
  if (family == ModelFamily::kQwen2 || family == ModelFamily::kQwen3 || family == ModelFamily::kSmolLm3)
    config["use_sliding_window"] = false;
  if (family == ModelFamily::kLlama || family == ModelFamily::kQwen3 || family == ModelFamily::kSmolLm3)
    config["attention_bias"] = false;
  if (family == ModelFamily::kLlama || family == ModelFamily::kSmolLm3) config["mlp_bias"] = false;
  if (family == ModelFamily::kSmolLm3) config["no_rope_layers"] = no_rope_layers(model);
}

}  // namespace

json huggingface_config(const ModelConfig& model, const std::string& dtype, int64_t max_positions) {
  LIGHTHOUSE_CHECK(model.family != ModelFamily::kLlama || model.dim % model.num_heads == 0,
                   "export: model.dim = ", model.dim, " is not a multiple of model.num_heads = ", model.num_heads,
                   "; transformers refuses such a Llama configuration, though head_dim is given apart");
  json config = {{"architectures", {defaults_of(model.family).architecture}},
                 {"model_type", word(model.family)},
                 {"vocab_size", model.vocab_size},
                 {"hidden_size", model.dim},
                 {"intermediate_size", model.ffn_dim},
                 {"num_hidden_layers", model.num_layers},
                 {"num_attention_heads", model.num_heads},
                 {"num_key_value_heads", model.num_kv_heads},
                 {"head_dim", model.head_dim},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", max_positions},
                 {"initializer_range", model.init_std},
                 {"rms_norm_eps", model.rms_norm_eps},
                 {"tie_word_embeddings", model.tie_embeddings},
                 {"attention_dropout", 0.0},
                 {"use_cache", true},
                 {"bos_token_id", nullptr},  // null, or else transformers assumes 1 and 2
                 {"eos_token_id", nullptr},
                 {"pad_token_id", nullptr},
                 {"torch_dtype", dtype}};
  write_huggingface_rope(model, config);
  add_family_keys(model, config);
  return config;
}

ModelConfig parse_huggingface_config(const json& config, const std::string& source) {
  if (!config.is_object()) throw DamagedFile(detail::concat("'", source, "': not a JSON object"));
  const JsonKeys keys(config, source);
  ModelConfig model;
  model.family = known_family(keys);
  const FamilyDefaults defaults = defaults_of(model.family);
  require_known_computation(keys);
  refuse_windows(keys, model.family);

  model.vocab_size = keys.get<int64_t>("vocab_size");
  model.dim = keys.get<int64_t>("hidden_size");
  model.ffn_dim = keys.get<int64_t>("intermediate_size");
  model.num_layers = keys.get<int64_t>("num_hidden_layers");
  model.num_heads = keys.get<int64_t>("num_attention_heads");
  LIGHTHOUSE_CHECK(model.num_heads > 0, "'", source, "': num_attention_heads = ", model.num_heads,
                   " must be at least 1");
  const bool all_heads = defaults.num_kv_heads == 0 || keys.is_null("num_key_value_heads");
  model.num_kv_heads = keys.get<int64_t>("num_key_value_heads", all_heads ? model.num_heads : defaults.num_kv_heads);
  model.head_dim =
      keys.get<int64_t>("head_dim", defaults.head_dim > 0 ? defaults.head_dim : model.dim / model.num_heads);
  model.rms_norm_eps = keys.get<double>("rms_norm_eps", 1e-6);
  parse_huggingface_rope(keys, defaults.rope_theta, model);
  if (model.family == ModelFamily::kSmolLm3)
    model.layers_without_rope = parse_layers_without_rope(keys, model.num_layers);
  model.tie_embeddings = keys.get<bool>("tie_word_embeddings", defaults.tied);
  model.init_std = keys.get<double>("initializer_range", 0.02);
  return model;
}

int64_t huggingface_positions(const json& config, const std::string& source) {
  const ModelConfig model = parse_huggingface_config(config, source);
  const auto positions = JsonKeys(config, source).get<int64_t>("max_position_embeddings", 0);
  const int64_t before = model.rope_original_len > 0 ? model.rope_original_len : positions;
  const double scaled = static_cast<double>(before) * model.rope_factor;
  return std::max(positions, static_cast<int64_t>(std::min(scaled, 9e18)));
}

}  // namespace lighthouse
