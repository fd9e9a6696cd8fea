// Keys that a run changes on its way: a start that goes on from a checkpoint may name some.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace lighthouse {

/// What one start has changed, for the steps after `step`. Values as TOML.
struct KeyChange {
  int64_t step;
  std::string key, before, after;
};

/// Throws ConfigError for a name that is no key, or a key that a run keeps: what weights and moments are of, and what
/// the steps that are done have been counted by.
void check_changeable(const std::vector<std::string>& keys);

/// Those of `keys` whose values differ; `saved` then has those of `now`. Throws InvalidArgument where text that was
/// held out might be trained on.
std::vector<KeyChange> take_changes(RunConfig& saved, const RunConfig& now, const std::vector<std::string>& keys,
                                    int64_t step);

/// Whether one of them says what the data is, or how it is read.
bool change_data(const std::vector<std::string>& keys);
bool change_data(const std::vector<KeyChange>& changes);

/// "attention.topk (512 in the checkpoint, 256 now), ..."
std::string words_of(const std::vector<KeyChange>& changes);

/// [{"step": .., "key": .., "before": .., "after": ..}, ...]
nlohmann::ordered_json to_json(const std::vector<KeyChange>& changes);
/// Throws DamagedFile, and what the library throws.
std::vector<KeyChange> changes_from_json(const nlohmann::json& list);

}  // namespace lighthouse
