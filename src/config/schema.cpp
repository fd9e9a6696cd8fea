#include "config/schema.h"

#include <algorithm>
#include <functional>

#include "config/key_table.h"

namespace lighthouse {
namespace {

KeyInfo describe(const Key& key, const RunConfig& defaults) {
  const std::string limits = limits_text(key);
  KeyInfo info{key.name, type_name(key), value_toml(key, defaults), key.help, {}};
  const bool list = info.type == "list of integers";
  if (!limits.empty()) info.help += (list ? " (each " : " (") + limits + ")";
  if (const auto* choice = std::get_if<NameChoice>(&key.limits)) info.choices = choice->names;
  if (const auto* choice = std::get_if<IntegerChoice>(&key.limits)) {
    for (const int64_t value : choice->values) info.choices.push_back(std::to_string(value));
  }
  if (info.type == "true or false") info.choices = {"true", "false"};
  return info;
}

/// The keys that have a comment, each with it.
std::string toml_text(const RunConfig& config,
                      const std::function<std::optional<std::string>(const Key& key)>& comment_of) {
  std::string text;
  std::string section;
  for (const Key& key : key_table()) {
    if (key.name == kPresetKey) continue;  // its values are written out
    const std::optional<std::string> comment = comment_of(key);
    if (!comment) continue;
    if (key.section() != section) {
      section = key.section();
      text += (text.empty() ? "[" : "\n[") + section + "]\n";
    }
    text += key.leaf() + " = " + value_toml(key, config) + "  # " + *comment + "\n";
  }
  return text;
}

}  // namespace

std::vector<KeyInfo> config_keys() {
  std::vector<KeyInfo> infos;
  for (const Key& key : key_table()) infos.push_back(describe(key, RunConfig{}));
  return infos;
}

void apply_override(RunConfig& config, const std::string& key, const std::string& value) {
  const Key* known = find_key(key);
  if (known == nullptr) {
    const std::string nearest = nearest_key(key);
    throw ConfigError("--" + key + ": unknown option" + did_you_mean(nearest.empty() ? "" : "--" + nearest));
  }
  const auto parsed = parse_text(*known, value);
  if (parsed && assign(*known, config, *parsed)) return;
  std::string message = "--" + key + " " + (value.empty() ? "\"\"" : value) + ": must be " + expectation(*known, value);
  if (!is_utf8(value)) {
    message = "--" + key + ": the value is not valid UTF-8, so the run could not keep it in its config.toml";
  } else if (const auto* choice = std::get_if<NameChoice>(&known->limits)) {
    message += did_you_mean(nearest_name(value, choice->names));
  } else if (std::holds_alternative<std::vector<int64_t>*>(known->field(config))) {
    message += ", separated by commas as 0,1,28,29, or [] for none";
  }
  throw ConfigError(message);
}

void apply_overrides(RunConfig& config, const std::vector<std::pair<std::string, std::string>>& overrides) {
  RunConfig changed = config;
  for (const bool preset : {true, false}) {
    for (const auto& [key, value] : overrides) {
      if ((key == kPresetKey) == preset) apply_override(changed, key, value);
    }
  }
  config = changed;
}

std::string to_toml(const RunConfig& config) {
  return toml_text(config, [&](const Key& key) { return std::optional(describe(key, config).help); });
}

std::string to_toml(const RunConfig& config, const std::vector<std::pair<std::string, std::string>>& comments) {
  return toml_text(config, [&](const Key& key) -> std::optional<std::string> {
    const auto found =
        std::find_if(comments.begin(), comments.end(), [&](const auto& comment) { return comment.first == key.name; });
    return found == comments.end() ? std::nullopt : std::optional(found->second);
  });
}

}  // namespace lighthouse
