// Numbers as arguments and keys give them: how they are read, what they may be, and the words for that.
#pragma once

#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace lighthouse {

struct IntegerRange {  ///< of an integer, or of every element of a list
  int64_t min;
  int64_t max = std::numeric_limits<int64_t>::max();
};
struct NumberRange {
  double min;
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  bool max_excluded = false;
};

bool allowed(const IntegerRange& range, int64_t value);
bool allowed(const NumberRange& range, double value);  ///< finite too

/// "at least 1", "from 1 to 8"; "above 0 and at most 1".
std::string range_text(const IntegerRange& range);
std::string range_text(const NumberRange& range);
/// What an error says that a value must be: "an integer at least 1", "a finite number above 0".
std::string expectation(const IntegerRange& range);
std::string expectation(const NumberRange& range);
/// The same in answer to a text, which is told the largest integer that there is when it is beyond that.
std::string expectation(const IntegerRange& range, const std::string& text);

/// The whole text as a decimal number. nullopt when it is none, or none that the type holds.
template <typename T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// As TOML has it: with a point or an exponent.
std::string number_text(double value);

/// With so many digits that count, at least 1.
double rounded(double value, int digits);

}  // namespace lighthouse
