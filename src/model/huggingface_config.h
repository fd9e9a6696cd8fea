// A model's config.json as transformers writes and reads it. Knows no torch.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "config/run_config.h"

namespace lighthouse {

// Files of a model's folder.
inline constexpr const char* kHuggingfaceConfigFile = "config.json";
inline constexpr const char* kHuggingfaceWeightsFile = "model.safetensors";
inline constexpr const char* kHuggingfaceIndexFile = "model.safetensors.index.json";  ///< of a model in shards

/// The config.json of a model, for transformers' architecture of its family. `dtype` is torch's name of the weights'
/// dtype, "float32" or "bfloat16". Throws InvalidArgument for sizes that transformers refuses.
nlohmann::json huggingface_config(const ModelConfig& model, const std::string& dtype, int64_t max_positions);

/// The model of a config.json of transformers 4 or 5. Throws InvalidArgument naming `source`, the key and its value for
/// what this decoder cannot run (other architectures, mixtures of experts, latent attention, sliding windows, other
/// scalings of RoPE, biases and activations), and DamagedFile for keys that are missing or of the wrong type.
ModelConfig parse_huggingface_config(const nlohmann::json& config, const std::string& source);

/// Positions that the model of a config.json was made for: max_position_embeddings, or as many as its scaling of RoPE
/// makes of those before; 0 where it does not say. Throws as the above.
int64_t huggingface_positions(const nlohmann::json& config, const std::string& source);

}  // namespace lighthouse
