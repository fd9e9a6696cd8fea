#include <utility>

#include "config/schema.h"

namespace lighthouse {
namespace {

// "tiny" is what ModelConfig starts as.
const std::vector<std::pair<std::string, ModelConfig>>& presets() {
  static const std::vector<std::pair<std::string, ModelConfig>> table = {
      {"tiny", {}},
      {"small", {.dim = 384, .num_layers = 6, .num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .ffn_dim = 1024}},
      {"base", {.dim = 768, .num_layers = 12, .num_heads = 12, .num_kv_heads = 4, .head_dim = 64, .ffn_dim = 2816}},
      {"paper",
       {.dim = 1024,
        .num_layers = 30,
        .num_heads = 8,
        .num_kv_heads = 8,
        .head_dim = 128,
        .ffn_dim = 1536,
        .rope_theta = 10000.0}},
      {"llama3-1b",
       {.vocab_size = 128256,
        .dim = 2048,
        .num_layers = 16,
        .num_heads = 32,
        .num_kv_heads = 8,
        .head_dim = 64,
        .ffn_dim = 8192,
        .tie_embeddings = true}},
      {"llama3-8b",
       {.vocab_size = 128256,
        .dim = 4096,
        .num_layers = 32,
        .num_heads = 32,
        .num_kv_heads = 8,
        .head_dim = 128,
        .ffn_dim = 14336}},
  };
  return table;
}

}  // namespace

std::vector<std::string> model_preset_names() {
  std::vector<std::string> names;
  for (const auto& preset : presets()) names.push_back(preset.first);
  return names;
}

ModelConfig model_preset(const std::string& name) {
  for (const auto& [known, model] : presets()) {
    if (known == name) return model;
  }
  std::string message = "model.preset = \"" + name + "\": must be one of";
  for (const std::string& known : model_preset_names()) message += " " + known;
  throw ConfigError(message + did_you_mean(nearest_name(name, model_preset_names())));
}

}  // namespace lighthouse
