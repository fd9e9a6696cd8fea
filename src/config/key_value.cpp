#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <type_traits>

#include "config/key_table.h"
#include "config/schema.h"

namespace lighthouse {
namespace {

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

/// "a, b or c"
std::string join_choices(const std::vector<std::string>& names) {
  std::string text;
  for (size_t index = 0; index < names.size(); ++index) {
    if (index > 0) text += index + 1 == names.size() ? " or " : ", ";
    text += names[index];
  }
  return text;
}

bool allowed(const IntegerChoice& choice, int64_t value) {
  return std::find(choice.values.begin(), choice.values.end(), value) != choice.values.end();
}
bool allowed(const NameChoice& choice, const std::string& value) {
  return std::find(choice.names.begin(), choice.names.end(), value) != choice.names.end();
}
bool allowed(const IntegerRange& range, const std::vector<int64_t>& values) {
  return std::all_of(values.begin(), values.end(), [&](int64_t value) { return allowed(range, value); });
}
/// Limits of another type than the value do not apply to it.
template <typename Limit, typename T>
bool allowed(const Limit& /*limit*/, const T& /*value*/) {
  return true;
}

template <typename T>
bool within(const Limits& limits, const T& value) {
  return std::visit([&](const auto& limit) { return allowed(limit, value); }, limits);
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  size_t begin = 0;
  for (size_t comma = text.find(','); comma != std::string::npos; comma = text.find(',', begin)) {
    parts.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

/// Without the brackets and spaces that TOML has around a list, if it has any.
std::string without_brackets(std::string text) {
  if (!text.starts_with('[') || !text.ends_with(']')) return text;
  std::erase(text, ' ');
  return text.substr(1, text.size() - 2);
}

std::optional<Value> parse_integers(const std::string& with_brackets) {
  return read_list<int64_t>(split_commas(without_brackets(with_brackets)),
                            [](const std::string& part) { return parse_number<int64_t>(part); });
}

template <typename T>
std::optional<Value> to_value(const std::optional<T>& parsed) {
  return parsed ? std::optional<Value>(*parsed) : std::nullopt;
}

template <typename T, typename Format>
std::string list_toml(const std::vector<T>& values, Format format) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + format(value);
  return "[" + text + "]";
}

/// The key's field in some configuration, to ask for its type.
FieldRef any_field(const Key& key) {
  static RunConfig config;
  return key.field(config);
}

void set_by_name(const PresetField& field, const std::string& name) { *field.model = model_preset(name); }
void set_by_name(const WordField& field, const std::string& name) { field.set(field.field, name); }

}  // namespace

std::string type_name(const Key& key) {
  return std::visit(Overloaded{[](PresetField) { return "text"; }, [](WordField) { return "text"; },
                               [](const bool*) { return "true or false"; }, [](const int64_t*) { return "integer"; },
                               [](const double*) { return "number"; }, [](const std::string*) { return "text"; },
                               [](const std::vector<int64_t>*) { return "list of integers"; },
                               [](const std::vector<std::string>*) { return "list of texts"; }},
                    any_field(key));
}

std::string limits_text(const Key& key) {
  return std::visit(Overloaded{[](const AnyValue&) { return std::string(); },
                               [](const IntegerRange& range) { return range_text(range); },
                               [](const NumberRange& range) { return range_text(range); },
                               [](const IntegerChoice& choice) {
                                 std::vector<std::string> names;
                                 for (const int64_t value : choice.values) names.push_back(std::to_string(value));
                                 return join_choices(names);
                               },
                               [](const NameChoice& choice) { return join_choices(choice.names); }},
                    key.limits);
}

std::string expectation(const Key& key, const std::string& given) {
  const std::string type = type_name(key);
  const std::string limits = limits_text(key);
  const bool choice =
      std::holds_alternative<IntegerChoice>(key.limits) || std::holds_alternative<NameChoice>(key.limits);
  if (choice) return limits;
  if (const auto* range = std::get_if<IntegerRange>(&key.limits); range != nullptr && type == "integer") {
    return expectation(*range, given);
  }
  if (const auto* range = std::get_if<NumberRange>(&key.limits)) return expectation(*range);
  if (type == "list of integers") return "a list of integers, each " + limits;
  if (type == "list of texts") return "a list of texts";
  return type;
}

std::optional<Value> parse_text(const Key& key, const std::string& text) {
  using Parsed = std::optional<Value>;
  const auto parse_utf8 = [&] { return is_utf8(text) ? Parsed(text) : Parsed(); };
  return std::visit(
      Overloaded{
          [&](PresetField) { return parse_utf8(); }, [&](WordField) { return parse_utf8(); },
          [&](const bool*) { return text == "true" || text == "false" ? Parsed(text == "true") : Parsed(); },
          [&](const int64_t*) { return to_value(parse_number<int64_t>(text)); },
          [&](const double*) { return to_value(parse_number<double>(text)); },
          [&](const std::string*) { return parse_utf8(); },
          [&](const std::vector<int64_t>*) { return parse_integers(text); },
          [&](const std::vector<std::string>*) { return is_utf8(text) ? Parsed(split_commas(text)) : Parsed(); }},
      any_field(key));
}

bool assign(const Key& key, RunConfig& config, const Value& value) {
  return std::visit(
      [&](auto field) {
        if constexpr (std::is_class_v<decltype(field)>) {
          const auto* name = std::get_if<std::string>(&value);
          if (name == nullptr || !within(key.limits, *name)) return false;
          set_by_name(field, *name);
        } else {
          const auto* typed = std::get_if<std::remove_pointer_t<decltype(field)>>(&value);
          if (typed == nullptr || !within(key.limits, *typed)) return false;
          *field = *typed;
        }
        return true;
      },
      key.field(config));
}

void copy_value(const Key& key, const RunConfig& from, RunConfig& to) {
  RunConfig copy = from;
  const FieldRef target = key.field(to);
  std::visit(Overloaded{[](PresetField) {},
                        [&](WordField words) {
                          const WordField field = std::get<WordField>(target);
                          field.set(field.field, words.get(words.field));
                        },
                        [&](auto* value) { *std::get<decltype(value)>(target) = *value; }},
             key.field(copy));
}

bool within_limits(const Key& key, const RunConfig& config) {
  RunConfig copy = config;
  return std::visit(Overloaded{[](PresetField) { return true; }, [](WordField) { return true; },
                               [&](const auto* field) { return within(key.limits, *field); }},
                    key.field(copy));
}

std::string value_toml(const Key& key, const RunConfig& config) {
  RunConfig copy = config;
  return std::visit(Overloaded{[](PresetField) { return std::string("\"\""); },
                               [](WordField words) { return quote_toml(words.get(words.field)); },
                               [](const bool* value) { return std::string(*value ? "true" : "false"); },
                               [](const int64_t* value) { return std::to_string(*value); },
                               [](const double* value) { return number_text(*value); },
                               [](const std::string* value) { return quote_toml(*value); },
                               [](const std::vector<int64_t>* values) {
                                 return list_toml(*values, [](int64_t value) { return std::to_string(value); });
                               },
                               [](const std::vector<std::string>* values) { return list_toml(*values, quote_toml); }},
                    key.field(copy));
}

std::string quote_toml(const std::string& text) {
  constexpr std::string_view kHexDigits = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += "\\u00";
      quoted += {kHexDigits[byte >> 4U], kHexDigits[byte & 15U]};
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

bool is_utf8(const std::string& text) {
  try {
    static_cast<void>(nlohmann::json(text).dump());
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

}  // namespace lighthouse
