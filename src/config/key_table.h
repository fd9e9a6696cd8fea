// The table behind schema.h: one row for each key of the configuration.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "config/choices.h"
#include "config/limits.h"
#include "config/run_config.h"

namespace lighthouse {

inline constexpr const char* kPresetKey = "model.preset";

/// model.preset is a key without a field: its value replaces the whole model section.
struct PresetField {
  ModelConfig* model;
};
/// A field of an enum, by its words.
struct WordField {
  template <Worded E>
  WordField(E* value)  // NOLINT(google-explicit-constructor): as the other fields are their addresses
      : field(value),
        get([](const void* from) { return std::string(word(*static_cast<const E*>(from))); }),
        set([](void* to, const std::string& text) { *static_cast<E*>(to) = find_word<E>(text).value(); }) {}

  void* field;
  std::string (*get)(const void* field);
  void (*set)(void* field, const std::string& text);  ///< one of its words
};
using FieldRef = std::variant<PresetField, WordField, bool*, int64_t*, double*, std::string*, std::vector<int64_t>*,
                              std::vector<std::string>*>;

/// A value read from a file or an argument, before it is checked against a key.
using Value = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<std::string>>;

struct AnyValue {};
struct IntegerChoice {
  std::vector<int64_t> values;
};
struct NameChoice {
  std::vector<std::string> names;
};
using Limits = std::variant<AnyValue, IntegerRange, NumberRange, IntegerChoice, NameChoice>;

struct Key {
  std::string name;               ///< "training.steps"
  FieldRef (*field)(RunConfig&);  ///< where its value lives
  Limits limits;
  std::string help;
  std::string section() const { return name.substr(0, name.find('.')); }
  std::string leaf() const { return name.substr(name.find('.') + 1); }
};

/// In the order of --help and to_toml: section after section.
const std::vector<Key>& key_table();
const Key* find_key(const std::string& name);  ///< nullptr when there is none
std::vector<std::string> section_names();

/// "integer", "number", ... as KeyInfo::type.
std::string type_name(const Key& key);
/// What the limits allow, such as "from 1 to 8" or "fp32 or bf16"; "" when everything is.
std::string limits_text(const Key& key);
/// "an integer from 1 to 8", "true or false": what an error says that a value must be; of an argument, its text.
std::string expectation(const Key& key, const std::string& given = "");

/// Reads an argument's text as the key's type; lists are separated by commas, those of integers also as
/// TOML writes them. nullopt when it does not read as one.
std::optional<Value> parse_text(const Key& key, const std::string& text);
/// Stores the value unless its type is wrong or the limits forbid it: then returns false and changes nothing.
bool assign(const Key& key, RunConfig& config, const Value& value);
/// Gives `to` the value of `from`.
void copy_value(const Key& key, const RunConfig& from, RunConfig& to);
/// Whether the value that the configuration holds is within the key's limits.
bool within_limits(const Key& key, const RunConfig& config);
/// The value that the configuration holds, as TOML.
std::string value_toml(const Key& key, const RunConfig& config);
/// The list of what `read` makes of each of the parts; nullopt where it makes nothing of one.
template <typename T, typename Parts, typename Read>
std::optional<Value> read_list(const Parts& parts, const Read& read) {
  std::vector<T> values;
  for (const auto& part : parts) {
    const std::optional<T> value = read(part);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}
std::string quote_toml(const std::string& text);
bool is_utf8(const std::string& text);

}  // namespace lighthouse
