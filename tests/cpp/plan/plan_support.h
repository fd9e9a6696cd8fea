// Configurations that tests of the plan share.
#pragma once

#include "config/schema.h"
#include "plan/device_profile.h"

namespace lighthouse {

inline constexpr int64_t kGiB = int64_t{1} << 30;
inline constexpr bool kStage1 = true;
inline constexpr bool kStage2 = false;

inline const DeviceProfile& h200() { return *find_profile("NVIDIA H200"); }

/// configs/paper.toml: 98,304 tokens, L = 3, p = 4, k = 1,536, dense layers {0, 1, 28, 29}, bf16.
inline RunConfig paper_config() {
  RunConfig config;
  apply_toml_file(config, std::string(LIGHTHOUSE_CONFIG_DIR) + "/paper.toml");
  return config;
}

/// Small enough to be counted by hand: 2 layers of C = 8, F = 12, 2 heads and 1 KV head of 4, V = 10; 16 tokens; two
/// levels by 2 of which 2 entries are expanded, so S = 8 + 4 = 12; layer 0 is dense; fp32.
inline RunConfig small_config() {
  RunConfig config;
  config.model.vocab_size = 10;
  config.model.dim = 8;
  config.model.num_layers = 2;
  config.model.num_heads = 2;
  config.model.num_kv_heads = 1;
  config.model.head_dim = 4;
  config.model.ffn_dim = 12;
  config.attention.num_levels = 2;
  config.attention.pooling_factor = 2;
  config.attention.topk = 2;
  config.attention.full_attention_layers = {0};
  config.training.seq_len = 16;
  return config;
}

}  // namespace lighthouse
