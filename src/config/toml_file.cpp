#include <algorithm>
#include <cctype>
#include <cmath>
#include <sstream>
#include <system_error>

#include "config/key_table.h"
#include "config/schema.h"
#include "config/toml_depth.h"
#include "config/toml_library.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/printable.h"

namespace lighthouse {
namespace {

/// "small.toml:12: "
std::string place(const std::string& source, const toml::source_region& region) {
  return source + ":" + std::to_string(region.begin.line) + ": ";
}

/// A key as TOML has it: in quotes where its characters ask for them.
std::string shown(const toml::key& key) {
  const std::string name(key.str());
  const auto is_bare = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  const bool bare = !name.empty() && std::all_of(name.begin(), name.end(), is_bare);
  return shortened(bare ? name : quote_toml(name));
}

/// The value as TOML has it, of a long one the beginning. toml++ prints none that hold others: it takes the logarithm
/// of every number, also of 0.1, for a count of columns.
class ShownValue {
 public:
  explicit ShownValue(const toml::node& node) { add(node); }
  std::string text() const { return text_.size() <= kLongest ? text_ : text_.substr(0, kLongest) + "..."; }

 private:
  static constexpr size_t kLongest = 60;

  void add(const toml::node& node) {
    if (text_.size() > kLongest) return;
    if (const auto* array = node.as_array()) return add_elements(*array);
    if (node.is_table()) {
      text_ += "{...}";
    } else if (const auto text = node.value_exact<std::string>()) {
      text_ += quote_toml(*text);
    } else if (const auto number = node.value_exact<double>(); number && std::isfinite(*number)) {
      text_ += number_text(*number);
    } else {
      std::ostringstream stream;
      node.visit([&](const auto& value) { stream << toml::toml_formatter(value, toml::format_flags::none); });
      text_ += stream.str();
    }
  }
  void add_elements(const toml::array& array) {
    text_ += "[";
    for (size_t index = 0; index < array.size() && text_.size() <= kLongest; ++index) {
      text_ += index == 0 ? " " : ", ";
      add(array[index]);
    }
    text_ += array.empty() ? "]" : " ]";
  }

  std::string text_;
};

std::string shown(const toml::node& node) { return ShownValue(node).text(); }

template <typename T>
std::optional<Value> read_array(const toml::node& node) {
  const toml::array* array = node.as_array();
  if (array == nullptr) return std::nullopt;
  return read_list<T>(*array, [](const toml::node& element) { return element.value_exact<T>(); });
}

template <typename T>
std::optional<Value> read_exact(const toml::node& node) {
  const auto value = node.value_exact<T>();
  return value ? std::optional<Value>(*value) : std::nullopt;
}

std::optional<Value> read_as(PresetField /*type*/, const toml::node& node) { return read_exact<std::string>(node); }
std::optional<Value> read_as(const WordField& /*type*/, const toml::node& node) {
  return read_exact<std::string>(node);
}
std::optional<Value> read_as(const double* /*type*/, const toml::node& node) {
  if (const auto* whole = node.as_integer()) return static_cast<double>(whole->get());  // as clip_norm = 1
  return read_exact<double>(node);
}
template <typename T>
std::optional<Value> read_as(const std::vector<T>* /*type*/, const toml::node& node) {
  return read_array<T>(node);
}
template <typename T>
std::optional<Value> read_as(const T* /*type*/, const toml::node& node) {
  return read_exact<T>(node);
}

/// A text ends there for the system, so that another file would be named.
bool has_zero(const Value& value) {
  const auto in_text = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (const auto* text = std::get_if<std::string>(&value)) return in_text(*text);
  const auto* texts = std::get_if<std::vector<std::string>>(&value);
  return texts != nullptr && std::any_of(texts->begin(), texts->end(), in_text);
}

void set_key(RunConfig& config, const Key& key, const toml::node& node, const std::string& source) {
  const auto value = std::visit([&](const auto& field) { return read_as(field, node); }, key.field(config));
  if (value && has_zero(*value)) {
    throw ConfigError(place(source, node.source()) + key.name + " = " + shown(node) +
                      ": has a zero byte (\\u0000), which no name of a file and no word has");
  }
  if (value && assign(key, config, *value)) return;
  std::string message = place(source, node.source()) + key.name + " = " + shown(node) + ": must be " + expectation(key);
  const auto* choice = std::get_if<NameChoice>(&key.limits);
  const auto* given = node.as_string();
  if (choice != nullptr && given != nullptr) message += did_you_mean(nearest_name(given->get(), choice->names));
  throw ConfigError(message);
}

/// Files of versions before there was model.family have model.qk_norm in its place.
bool set_retired_key(RunConfig& config, const std::string& name, const toml::node& node) {
  const auto* given = node.as_boolean();
  if (name != "model.qk_norm" || given == nullptr) return false;
  if (given->get()) config.model.family = ModelFamily::kQwen3;
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
      throw ConfigError(place(source, toml_key.source()) + section + "." + shown(toml_key) + ": unknown key" +
                        did_you_mean(nearest_key(name)));
    }
    if ((name == kPresetKey) == preset) set_key(config, *key, node, source);
  }
}

void check_sections(const toml::table& document, const std::string& source) {
  const std::vector<std::string> sections = section_names();
  for (const auto& [toml_key, node] : document) {
    const std::string name(toml_key.str());
    const bool known = std::find(sections.begin(), sections.end(), name) != sections.end();
    const std::string where = place(source, toml_key.source()) + shown(toml_key);
    if (known && node.is_table()) continue;
    if (known) throw ConfigError(where + " = " + shown(node) + ": must be a section, written [" + name + "]");
    if (node.is_table()) throw ConfigError(where + ": unknown section" + did_you_mean(nearest_name(name, sections)));
    throw ConfigError(where + ": unknown key; every key belongs to a section" + did_you_mean(nearest_key(name)));
  }
}

std::string read_configuration(const std::filesystem::path& path) {
  const std::string name = path.string();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    throw ConfigError(name + ": is a folder; give the configuration file in it");
  }
  try {
    const InputFile file(path);
    if (file.size() > kMaxTomlBytes) {
      throw ConfigError(name + ": has " + std::to_string(file.size()) + " bytes; a configuration has at most " +
                        std::to_string(kMaxTomlBytes));
    }
    std::string text(static_cast<size_t>(file.size()), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    return text;
  } catch (const std::system_error& failure) {
    throw ConfigError(name + ": cannot read the configuration file: " + failure.code().message());
  } catch (const DamagedFile&) {
    throw ConfigError(name + ": is no regular file, or is written to; write the configuration to a file first");
  }
}

}  // namespace

void apply_toml(RunConfig& config, const std::string& text, const std::string& source) {
  if (const auto fault = too_large(text)) {
    throw ConfigError(source + ":" + std::to_string(fault->line) + ": " + fault->what);
  }
  toml::table document;
  try {
    document = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    const std::string what(error.description());
    const bool twice = what.find("cannot redefine") != std::string::npos;
    throw ConfigError(place(source, error.source()) + shortened(what) + (twice ? "; a key may stand only once" : ""));
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
  apply_toml(config, read_configuration(path), path.string());
}

}  // namespace lighthouse
