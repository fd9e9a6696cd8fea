#include "config/toml_depth.h"

#include <algorithm>

namespace lighthouse {
namespace {

/// Behind a string that begins at `begin`: of one line at its end at the latest, where it is a mistake.
size_t string_end(std::string_view text, size_t begin) {
  const char quote = text[begin];
  const std::string triple(3, quote);
  const bool long_one = text.substr(begin).starts_with(triple);
  size_t at = begin + (long_one ? 3 : 1);
  while (at < text.size()) {
    if (text[at] == '\\' && quote == '"') {
      at += 2;
    } else if (long_one && text.substr(at).starts_with(triple)) {
      const size_t behind = text.find_first_not_of(quote, at);  // up to two quotes may stand before the three
      return std::min({behind, at + 5, text.size()});
    } else if (!long_one && (text[at] == quote || text[at] == '\n')) {
      return text[at] == quote ? at + 1 : at;
    } else {
      ++at;
    }
  }
  return text.size();
}

/// Behind what begins at `at`: a string, a comment or one character.
size_t token_end(std::string_view text, size_t at) {
  if (text[at] == '"' || text[at] == '\'') return string_end(text, at);
  return text[at] == '#' ? std::min(text.find('\n', at), text.size()) : at + 1;
}

/// Dots of the key and values that have begun.
struct Depth {
  int64_t dots = 0, open = 0;

  void take(char c) {
    constexpr std::string_view kEndsOfKeys = "[]{}=,\n";
    if (c == '.') ++dots;
    if (kEndsOfKeys.find(c) != std::string_view::npos) dots = 0;
    if (c == '[' || c == '{') ++open;
    if (c == ']' || c == '}') open = std::max<int64_t>(open - 1, 0);
  }
};

}  // namespace

std::optional<TomlFault> too_large(std::string_view text) {
  if (text.size() > static_cast<size_t>(kMaxTomlBytes)) {
    return TomlFault{1, "has " + std::to_string(text.size()) + " bytes; a configuration has at most " +
                            std::to_string(kMaxTomlBytes)};
  }
  const std::string most = std::to_string(kMaxTomlDepth);
  Depth depth;
  int64_t line = 1;
  size_t next = 0;
  for (size_t at = 0; at < text.size(); at = next) {
    next = token_end(text, at);
    depth.take(text[at]);
    if (depth.dots >= kMaxTomlDepth) return TomlFault{line, "a key of more than " + most + " parts"};
    if (depth.open > kMaxTomlDepth) return TomlFault{line, "values nested more than " + most + " deep"};
    const std::string_view token = text.substr(at, next - at);
    line += std::count(token.begin(), token.end(), '\n');
  }
  return std::nullopt;
}

}  // namespace lighthouse
