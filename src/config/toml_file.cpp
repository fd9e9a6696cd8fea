#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "config/key_table.h"
#include "config/schema.h"

namespace lighthouse {
namespace {

/// "small.toml:12: "
std::string place(const std::string& source, const toml::source_region& region) {
  return source + ":" + std::to_string(region.begin.line) + ": ";
}

std::string did_you_mean(const std::string& name) { return name.empty() ? "" : "; did you mean " + name + "?"; }

/// The value as the file has it, cut where it is long.
std::string shown(const toml::node& node) {
  constexpr size_t kLongest = 60;
  if (node.is_table()) return "{...}";
  std::ostringstream stream;
  node.visit([&](const auto& value) { stream << toml::toml_formatter(value, toml::format_flags::none); });
  const std::string text = stream.str();
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

template <typename T>
std::optional<Value> read_list(const toml::node& node) {
  const toml::array* array = node.as_array();
  if (array == nullptr) return std::nullopt;
  std::vector<T> values;
  for (const toml::node& element : *array) {
    const auto value = element.value_exact<T>();
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

template <typename T>
std::optional<Value> read_exact(const toml::node& node) {
  const auto value = node.value_exact<T>();
  return value ? std::optional<Value>(*value) : std::nullopt;
}

std::optional<Value> read_node(const Key& key, const toml::node& node) {
  const std::string type = type_name(key);
  if (type == "true or false") return read_exact<bool>(node);
  if (type == "integer") return read_exact<int64_t>(node);
  if (type == "list of integers") return read_list<int64_t>(node);
  if (type == "list of texts") return read_list<std::string>(node);
  if (type == "text") return read_exact<std::string>(node);
  if (node.is_integer()) return static_cast<double>(*node.value_exact<int64_t>());  // a number, as clip_norm = 1
  return read_exact<double>(node);
}

void set_key(RunConfig& config, const Key& key, const toml::node& node, const std::string& source) {
  const auto value = read_node(key, node);
  if (value && assign(key, config, *value)) return;
  std::string message = place(source, node.source()) + key.name + " = " + shown(node) + ": must be " + expectation(key);
  const auto* choice = std::get_if<NameChoice>(&key.limits);
  if (choice != nullptr && node.is_string()) {
    message += did_you_mean(nearest_name(*node.value_exact<std::string>(), choice->names));
  }
  throw ConfigError(message);
}

/// Files of versions before there was model.family have model.qk_norm in its place.
bool set_retired_key(RunConfig& config, const std::string& name, const toml::node& node) {
  if (name != "model.qk_norm" || !node.is_boolean()) return false;
  if (*node.value_exact<bool>()) config.model.family = "qwen3";
  return true;
}

/// One section's keys; of them only model.preset, or all but model.preset.
void set_section(RunConfig& config, const std::string& section, const toml::table& table, bool preset,
                 const std::string& source) {
  for (const auto& [toml_key, node] : table) {
    const std::string name = section + "." + std::string(toml_key.str());
    const Key* key = find_key(name);
    if (key == nullptr) {
      if (set_retired_key(config, name, node)) continue;
      throw ConfigError(place(source, toml_key.source()) + name + ": unknown key" + did_you_mean(nearest_key(name)));
    }
    if ((name == kPresetKey) == preset) set_key(config, *key, node, source);
  }
}

void check_sections(const toml::table& document, const std::string& source) {
  const std::vector<std::string> sections = section_names();
  for (const auto& [toml_key, node] : document) {
    const std::string name(toml_key.str());
    const bool known = std::find(sections.begin(), sections.end(), name) != sections.end();
    const std::string where = place(source, toml_key.source()) + name;
    if (known && node.is_table()) continue;
    if (known) throw ConfigError(where + " = " + shown(node) + ": must be a section, written [" + name + "]");
    if (node.is_table()) throw ConfigError(where + ": unknown section" + did_you_mean(nearest_name(name, sections)));
    throw ConfigError(where + ": unknown key; every key belongs to a section" + did_you_mean(nearest_key(name)));
  }
}

std::string read_file(const std::filesystem::path& path) {
  const std::string name = path.string();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    throw ConfigError(name + ": is a folder; give the configuration file in it");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError(name + ": cannot read the configuration file: " + std::strerror(errno));
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw ConfigError(name + ": cannot read the configuration file: " + std::strerror(errno));
  return text;
}

}  // namespace

void apply_toml(RunConfig& config, const std::string& text, const std::string& source) {
  toml::table document;
  try {
    document = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    const std::string what(error.description());
    const bool twice = what.find("cannot redefine") != std::string::npos;
    throw ConfigError(place(source, error.source()) + what + (twice ? "; a key may stand only once" : ""));
  }
  check_sections(document, source);
  RunConfig changed = config;
  for (const bool preset : {true, false}) {
    for (const auto& [section, node] : document) {
      set_section(changed, std::string(section.str()), *node.as_table(), preset, source);
    }
  }
  config = changed;
}

void apply_toml_file(RunConfig& config, const std::filesystem::path& path) {
  apply_toml(config, read_file(path), path.string());
}

}  // namespace lighthouse
