#include "config/limits.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace lighthouse {
namespace {

/// A limit in a sentence: 1, not 1.0.
std::string limit_text(double limit) {
  const std::string text = number_text(limit);
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

}  // namespace

bool allowed(const IntegerRange& range, int64_t value) { return value >= range.min && value <= range.max; }

bool allowed(const NumberRange& range, double value) {
  const bool above = range.min_excluded ? value > range.min : value >= range.min;
  const bool below = range.max_excluded ? value < range.max : value <= range.max;
  return std::isfinite(value) && above && below;
}

std::string range_text(const IntegerRange& range) {
  const bool open = range.max == std::numeric_limits<int64_t>::max();
  const std::string min = std::to_string(range.min);
  return open ? "at least " + min : "from " + min + " to " + std::to_string(range.max);
}

std::string range_text(const NumberRange& range) {
  const std::string min = limit_text(range.min);
  const std::string from = (range.min_excluded ? "above " : "at least ") + min;
  if (std::isinf(range.max)) return from;
  const std::string max = limit_text(range.max);
  if (!range.min_excluded && !range.max_excluded) return "from " + min + " to " + max;
  return from + (range.max_excluded ? " and below " : " and at most ") + max;
}

std::string expectation(const IntegerRange& range) { return "an integer " + range_text(range); }
std::string expectation(const NumberRange& range) { return "a finite number " + range_text(range); }

std::string expectation(const IntegerRange& range, const std::string& text) {
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [read, error] = std::from_chars(text.data(), end, value);
  const bool beyond = error == std::errc::result_out_of_range && read == end && text.front() != '-';
  const bool open = range.max == kLargest;
  return expectation(range) + (open && beyond ? " and at most " + std::to_string(kLargest) : "");
}

std::string number_text(double value) {
  std::array<char, 32> buffer{};
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e15);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr;
  std::string text(buffer.data(), end);
  const bool is_toml_float = text.find_first_of(".en") != std::string::npos;
  return is_toml_float ? text : text + ".0";
}

double rounded(double value, int digits) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.*e", digits - 1, value);
  return std::strtod(buffer.data(), nullptr);
}

}  // namespace lighthouse
