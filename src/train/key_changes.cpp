#include "train/key_changes.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "config/key_table.h"
#include "config/schema.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// The scorer gla has weights. The switch and the end move without being named, as far as they are ahead.
bool is_changeable(std::string_view key) {
  constexpr std::array<std::string_view, 3> kKept = {"attention.scorer", "training.lighthouse_steps", "training.seed"};
  constexpr std::array<std::string_view, 5> kSections = {"attention.", "optimizer.", "data.", "training.",
                                                         "model.rope_"};
  return std::find(kKept.begin(), kKept.end(), key) == kKept.end() &&
         std::any_of(kSections.begin(), kSections.end(), [&](auto section) { return key.starts_with(section); });
}

bool is_of_data(std::string_view key) { return key.starts_with("data.") || key == "training.seq_len"; }

/// Keys by which validation_fraction sets text apart.
bool sets_text_apart(std::string_view key) {
  return key == "training.seq_len" || key == "data.packing" || key == "data.validation_fraction";
}

}  // namespace

void check_changeable(const std::vector<std::string>& keys) {
  for (const std::string& name : keys) {
    if (find_key(name) == nullptr) {
      throw ConfigError(detail::concat(name, ": unknown key", did_you_mean(nearest_key(name))));
    }
    if (is_changeable(name)) continue;
    throw ConfigError(detail::concat(name,
                                     ": a run keeps it, or takes another value without its name here; by name change "
                                     "[attention] but scorer, [training] but seed and lighthouse_steps, [optimizer], "
                                     "[data] and model.rope_*"));
  }
}

std::vector<KeyChange> take_changes(RunConfig& saved, const RunConfig& now, const std::vector<std::string>& keys,
                                    int64_t step) {
  std::vector<KeyChange> changes;
  for (const Key& key : key_table()) {
    if (std::find(keys.begin(), keys.end(), key.name) == keys.end()) continue;
    const std::string before = value_toml(key, saved), after = value_toml(key, now);
    if (before == after) continue;
    LIGHTHOUSE_CHECK(
        !sets_text_apart(key.name) || now.data.validation_fraction == 0 || !now.data.validation_path.empty(), key.name,
        " goes from ", before, " to ", after,
        ", and data.validation_fraction sets other text apart by it, so that text of this run's training "
        "would be validated on; give data.validation_path, or data.validation_fraction 0 (and name it)");
    copy_value(key, now, saved);
    changes.push_back({step, key.name, before, after});
  }
  return changes;
}

bool change_data(const std::vector<std::string>& keys) { return std::any_of(keys.begin(), keys.end(), is_of_data); }

bool change_data(const std::vector<KeyChange>& changes) {
  return std::any_of(changes.begin(), changes.end(), [](const KeyChange& change) { return is_of_data(change.key); });
}

std::string words_of(const std::vector<KeyChange>& changes) {
  std::string words;
  for (const auto& [step, key, before, after] : changes) {
    words += detail::concat(words.empty() ? "" : ", ", key, " (", before, " in the checkpoint, ", after, " now)");
  }
  return words;
}

nlohmann::ordered_json to_json(const std::vector<KeyChange>& changes) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [step, key, before, after] : changes) {
    list.push_back({{"step", step}, {"key", key}, {"before", before}, {"after", after}});
  }
  return list;
}

std::vector<KeyChange> changes_from_json(const nlohmann::json& list) {
  std::vector<KeyChange> changes;
  for (const nlohmann::json& change : list) {
    changes.push_back({whole_member(change, "step"), member(change, "key").get<std::string>(),
                       member(change, "before").get<std::string>(), member(change, "after").get<std::string>()});
  }
  return changes;
}

}  // namespace lighthouse
