// Enums whose values have a word each, in configurations, options and messages.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <optional>
#include <ostream>
#include <string_view>

namespace lighthouse {

/// An enum of consecutive values from 0, beside which stands words_of(E), an array of their words in that order.
template <typename E>
concept Worded = requires(E value) {
  { words_of(value)[0] } -> std::convertible_to<std::string_view>;
};

template <Worded E>
constexpr auto words() {
  return words_of(E{});
}

template <Worded E>
constexpr std::string_view word(E value) {
  return words<E>().at(static_cast<size_t>(value));
}

/// The value that has this word.
template <Worded E>
constexpr std::optional<E> find_word(std::string_view text) {
  const auto all = words<E>();
  const auto found = std::find(all.begin(), all.end(), text);
  return found == all.end() ? std::nullopt : std::optional(static_cast<E>(found - all.begin()));
}

template <Worded E>
std::ostream& operator<<(std::ostream& out, E value) {
  return out << word(value);
}

}  // namespace lighthouse
