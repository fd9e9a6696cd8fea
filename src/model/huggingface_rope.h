// Rotary positions in a config.json: rope_parameters of transformers 5, rope_theta and rope_scaling of 4. Knows no
// torch.
#pragma once

#include <nlohmann/json.hpp>

#include "config/run_config.h"
#include "model/json_keys.h"

namespace lighthouse {

inline constexpr const char* kMaxPositions = "max_position_embeddings";

/// Adds the keys of both versions to `config`. With "dynamic" max_position_embeddings is model.rope_original_len, by
/// which transformers scales.
void write_huggingface_rope(const ModelConfig& model, nlohmann::json& config);

/// Sets model.rope_*. Throws InvalidArgument for scalings that this decoder does not know and for keys that contradict
/// one another, DamagedFile for those that are missing or of the wrong type.
void parse_huggingface_rope(const JsonKeys& keys, double default_theta, ModelConfig& model);

}  // namespace lighthouse
