// Text as any terminal can show it.
#pragma once

#include <string>
#include <string_view>

namespace lighthouse {

/// Bytes as valid UTF-8, in which U+FFFD stands for every byte that is not part of a character, and for control
/// characters other than tab and newline, which a terminal would obey.
class ByteText {
 public:
  /// The text that is certain after this byte: "" in the middle of a character.
  std::string add(unsigned char byte);
  std::string finish();  ///< what is left of a character that did not end

 private:
  std::string pending_;  ///< the first bytes of a character
};

/// The same of a whole text: messages repeat arguments, and names in files of others.
std::string printable(std::string_view bytes);

/// The same in one line, of a name: newlines and tabs are replaced too.
std::string printable_name(std::string_view bytes);

/// Of a long text the beginning, and how many bytes it has: names in files of others may be of any length, and messages
/// with them would flood a terminal.
std::string shortened(const std::string& text, size_t most = 300);

}  // namespace lighthouse
