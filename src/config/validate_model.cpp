#include <algorithm>
#include <string_view>

#include "config/key_table.h"
#include "config/validate.h"

namespace lighthouse {
namespace {

/// Keys model.rope_* that mean something with a scaling, without what all begin with.
std::vector<std::string_view> keys_of(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return {};
    case RopeScaling::kLinear:
      return {"factor"};
    case RopeScaling::kDynamic:
      return {"factor", "original_len"};
    case RopeScaling::kYarn:
      return {"factor", "original_len", "beta_fast", "beta_slow", "attention_factor"};
    case RopeScaling::kLlama3:
      return {"factor", "original_len", "low_freq_factor", "high_freq_factor"};
  }
  return {};
}

void validate_rope(const RunConfig& config) {
  const ModelConfig& model = config.model;
  constexpr std::string_view kPrefix = "model.rope_";
  std::vector<std::string_view> used = keys_of(model.rope_scaling);
  used.insert(used.end(), {"theta", "scaling"});
  for (const Key& key : key_table()) {
    if (!key.name.starts_with(kPrefix)) continue;
    const bool means = std::find(used.begin(), used.end(), key.name.substr(kPrefix.size())) != used.end();
    const std::string value = value_toml(key, config);
    const std::string unset = value_toml(key, RunConfig{});
    require(means || value == unset, key.name, " = ", value, ": means nothing with model.rope_scaling = \"",
            model.rope_scaling, "\"; leave it ", unset);
  }
  const bool from_length = std::find(used.begin(), used.end(), "original_len") != used.end();
  require(!from_length || model.rope_original_len >= 1, "model.rope_original_len = ", model.rope_original_len,
          ": must be the length of context from which model.rope_scaling = \"", model.rope_scaling, "\" goes on");
  require(model.rope_high_freq_factor > model.rope_low_freq_factor,
          "model.rope_high_freq_factor = ", model.rope_high_freq_factor,
          ": must be more than model.rope_low_freq_factor = ", model.rope_low_freq_factor);
  require(model.rope_beta_fast >= model.rope_beta_slow, "model.rope_beta_fast = ", model.rope_beta_fast,
          ": must be at least model.rope_beta_slow = ", model.rope_beta_slow);
  require(model.rope_scaling == RopeScaling::kNone || model.rope_theta > 1, "model.rope_theta = ", model.rope_theta,
          ": must be above 1 with model.rope_scaling = \"", model.rope_scaling, "\"");
  require(model.rope_scaling != RopeScaling::kDynamic || model.head_dim > 2, "model.head_dim = ", model.head_dim,
          ": must be above 2 with model.rope_scaling = \"dynamic\"");
}

}  // namespace

void validate_model(const RunConfig& config) {
  const ModelConfig& model = config.model;
  require(model.num_heads % model.num_kv_heads == 0, "model.num_heads = ", model.num_heads,
          ": must be a multiple of model.num_kv_heads = ", model.num_kv_heads,
          ", since every KV head serves the same number of query heads");
  require(model.head_dim % 2 == 0, "model.head_dim = ", model.head_dim,
          ": must be even, for RoPE turns pairs of channels");
  validate_rope(config);
  require(model.layers_without_rope.empty() || model.family == ModelFamily::kSmolLm3,
          "model.layers_without_rope: must be [] with model.family = \"", model.family,
          "\"; of the families smollm3 has such layers");
  validate_layer_list("model.layers_without_rope", model.layers_without_rope, model.num_layers);
}

void validate_layer_list(const std::string& key, std::vector<int64_t> layers, int64_t num_layers) {
  std::sort(layers.begin(), layers.end());
  const auto twice = std::adjacent_find(layers.begin(), layers.end());
  require(twice == layers.end(), key, ": layer ", twice == layers.end() ? 0 : *twice,
          " is listed twice; name every layer once");
  require(layers.empty() || layers.back() < num_layers, key, ": layer ", layers.empty() ? 0 : layers.back(),
          " does not exist; model.num_layers = ", num_layers, ", so layers are 0 to ", num_layers - 1);
}

}  // namespace lighthouse
