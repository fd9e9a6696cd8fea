// The parts of validate (schema.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "config/schema.h"
#include "lighthouse/check.h"

namespace lighthouse {

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) throw ConfigError(detail::concat(parts...));
}

/// What the keys of [model] need of one another. Throws ConfigError.
void validate_model(const RunConfig& config);

/// The layers that `key` lists are there, and each is listed once. Throws ConfigError.
void validate_layer_list(const std::string& key, std::vector<int64_t> layers, int64_t num_layers);

}  // namespace lighthouse
