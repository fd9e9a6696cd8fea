// How deep a TOML text is nested, before a parser builds it: toml++ takes the values of others that are nested, not
// tables in tables by dotted keys, whose destructors then end the program.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lighthouse {

/// Parts of a dotted key, and arrays and inline tables within one another, that a text may have.
inline constexpr int64_t kMaxTomlDepth = 32;

/// And bytes; no configuration of ours has a hundredth of them.
inline constexpr int64_t kMaxTomlBytes = 1 << 20;

struct TomlFault {
  int64_t line = 1;
  std::string what;
};

/// Why no parser may be given `text`: it is longer than kMaxTomlBytes, or a key or value is nested deeper than
/// kMaxTomlDepth. Strings and comments are passed over as toml++ does it; behind the first mistake in a text, where the
/// parser stops, strings may be taken for keys.
std::optional<TomlFault> too_large(std::string_view text);

}  // namespace lighthouse
