#include "model/huggingface_config.h"

#include <limits>

#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using nlohmann::json;

constexpr const char* kLlama = "llama";
constexpr const char* kQwen3 = "qwen3";

bool is_int64(const json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
}

/// Typed access to the keys of one JSON object.
class Keys {
 public:
  Keys(const json& object, const std::string& source) : object_(object), source_(source) {}

  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

  template <typename T>
  T get(const char* key) const {
    if (!has(key)) throw DamagedFile(detail::concat("'", source_, "': key ", key, " is missing"));
    const json& value = object_.at(key);
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_same_v<T, std::string> ? value.is_string()
                      : std::is_same_v<T, double>      ? value.is_number()
                                                       : is_int64(value);
    if (!fits)
      throw DamagedFile(detail::concat("'", source_, "': ", key, " = ", excerpt(value), " has the wrong type"));
    return value.get<T>();
  }
  template <typename T>
  T get(const char* key, const T& otherwise) const {
    return has(key) ? get<T>(key) : otherwise;
  }

  /// For keys that change what a model computes in ways that this decoder does not know.
  template <typename T>
  void require(const char* key, const T& only) const {
    const T value = get<T>(key, only);
    LIGHTHOUSE_CHECK(value == only, "'", source_, "': ", key, " = ", excerpt(object_.at(key)),
                     " is not supported; only ", json(only).dump(), " is");
  }

  Keys inner(const char* key) const {
    if (!object_.at(key).is_object()) throw DamagedFile(detail::concat("'", source_, "': ", key, " is not an object"));
    return {object_.at(key), source_};
  }

 private:
  const json& object_;
  const std::string& source_;
};

/// transformers 5 keeps theta in rope_parameters, 4 beside rope_scaling.
double parse_rope_theta(const Keys& keys) {
  constexpr double kDefaultTheta = 10000.0;  // of both architectures in transformers
  double theta = keys.get<double>("rope_theta", kDefaultTheta);
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!keys.has(name)) continue;
    const Keys rope = keys.inner(name);
    rope.require<std::string>("type", "default");
    rope.require<std::string>("rope_type", "default");
    rope.require<double>("partial_rotary_factor", 1.0);
    theta = rope.get<double>("rope_theta", theta);
  }
  return theta;
}

void require_known_computation(const Keys& keys) {
  keys.require<std::string>("hidden_act", "silu");
  keys.require<bool>("attention_bias", false);
  keys.require<bool>("mlp_bias", false);
  keys.require<bool>("use_sliding_window", false);
  keys.require<double>("partial_rotary_factor", 1.0);
}

}  // namespace

json huggingface_config(const ModelConfig& model, const std::string& dtype, int64_t max_positions) {
  LIGHTHOUSE_CHECK(model.qk_norm || model.dim % model.num_heads == 0, "export: model.dim = ", model.dim,
                   " is not a multiple of model.num_heads = ", model.num_heads,
                   "; transformers refuses such a Llama configuration, though head_dim is given apart");
  json config = {{"architectures", {model.qk_norm ? "Qwen3ForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", model.qk_norm ? kQwen3 : kLlama},
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
                 {"rope_theta", model.rope_theta},  // transformers 4
                 {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", model.rope_theta}}},
                 {"tie_word_embeddings", model.tie_embeddings},
                 {"attention_bias", false},
                 {"attention_dropout", 0.0},
                 {"use_cache", true},
                 {"bos_token_id", nullptr},  // null, or else transformers assumes 1 and 2
                 {"eos_token_id", nullptr},
                 {"pad_token_id", nullptr},
                 {"torch_dtype", dtype}};
  if (model.qk_norm) {
    config["use_sliding_window"] = false;
  } else {
    config["mlp_bias"] = false;
  }
  return config;
}

ModelConfig parse_huggingface_config(const json& config, const std::string& source) {
  if (!config.is_object()) throw DamagedFile(detail::concat("'", source, "': not a JSON object"));
  const Keys keys(config, source);
  const auto model_type = keys.get<std::string>("model_type");
  LIGHTHOUSE_CHECK(model_type == kLlama || model_type == kQwen3, "'", source, "': model_type = ", excerpt(model_type),
                   " is not supported; \"llama\" and \"qwen3\" are");
  require_known_computation(keys);

  ModelConfig model;
  model.vocab_size = keys.get<int64_t>("vocab_size");
  model.dim = keys.get<int64_t>("hidden_size");
  model.ffn_dim = keys.get<int64_t>("intermediate_size");
  model.num_layers = keys.get<int64_t>("num_hidden_layers");
  model.num_heads = keys.get<int64_t>("num_attention_heads");
  LIGHTHOUSE_CHECK(model.num_heads > 0, "'", source, "': num_attention_heads = ", model.num_heads,
                   " must be at least 1");
  // What is left out has transformers' default.
  model.qk_norm = model_type == kQwen3;
  model.num_kv_heads = keys.get<int64_t>("num_key_value_heads", model.qk_norm ? 32 : model.num_heads);
  model.head_dim = keys.get<int64_t>("head_dim", model.qk_norm ? 128 : model.dim / model.num_heads);
  model.rms_norm_eps = keys.get<double>("rms_norm_eps", 1e-6);
  model.rope_theta = parse_rope_theta(keys);
  model.tie_embeddings = keys.get<bool>("tie_word_embeddings", false);
  model.init_std = keys.get<double>("initializer_range", 0.02);
  return model;
}

}  // namespace lighthouse
