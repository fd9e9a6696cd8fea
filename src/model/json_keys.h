// Typed access to the keys of a config.json. Knows no torch.
#pragma once

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {

/// What is left out and what is null are one. Keys that are missing or of the wrong type throw DamagedFile naming
/// `source`, key and value.
class JsonKeys {
 public:
  JsonKeys(const nlohmann::json& object, const std::string& source) : object_(object), source_(source) {}

  const std::string& source() const { return source_; }
  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
  bool is_null(const char* key) const { return object_.contains(key) && object_.at(key).is_null(); }

  template <typename T>
  T get(const char* key) const {
    if (!has(key)) throw DamagedFile(detail::concat("'", source_, "': key ", key, " is missing"));
    const nlohmann::json& value = object_.at(key);
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_same_v<T, std::string> ? value.is_string()
                      : std::is_same_v<T, double>      ? value.is_number()
                      : std::is_same_v<T, int64_t>     ? is_int64(value)
                                                       : value.is_array();
    if (!fits) {
      const bool is_large = std::is_same_v<T, int64_t> && is_whole(value);
      throw DamagedFile(detail::concat("'", source_, "': ", key, " = ", excerpt(value),
                                       is_large ? " is beyond 64 bits" : " has the wrong type"));
    }
    return value.get<T>();
  }
  template <typename T>
  T get(const char* key, const T& otherwise) const {
    return has(key) ? get<T>(key) : otherwise;
  }

  /// For keys that change what a model computes in ways that this decoder does not know. Throws InvalidArgument.
  template <typename T>
  void require(const char* key, const T& only) const {
    if (get<T>(key, only) != only) refuse(key, "only " + nlohmann::json(only).dump() + " is");
  }
  /// Throws InvalidArgument: the key's value is not supported, and what is. `in_python`: it may be for transformers.
  [[noreturn]] void refuse(const char* key, const std::string& supported, bool in_python = true) const {
    const std::string value = object_.contains(key) ? excerpt(object_.at(key)) : "(left out)";
    throw InvalidArgument(detail::concat(
        "'", source_, "': ", key, " = ", value, " is not supported; ", supported,
        in_python ? "; for other models of transformers see lighthouse_attention.huggingface in docs/python.md"
                  : "; lighthouse_attention.huggingface has no such layers either"));
  }

  JsonKeys inner(const char* key) const {
    if (!object_.at(key).is_object()) throw DamagedFile(detail::concat("'", source_, "': ", key, " is not an object"));
    return {object_.at(key), source_};
  }

 private:
  /// A whole number that the parser took for a fraction, as it is too long, is one too.
  static bool is_whole(const nlohmann::json& value) {
    return value.is_number_integer() || (value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63);
  }
  static bool is_int64(const nlohmann::json& value) {
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > kMost);
  }

  const nlohmann::json& object_;
  const std::string& source_;
};

}  // namespace lighthouse
