#include "io/printable.h"

namespace lighthouse {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Bytes of the character that begins with `lead`; 0 where none does.
size_t character_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

/// Whether `byte` may come second after `lead`: neither longer than need be, nor a surrogate, nor above U+10FFFF.
bool may_come_second(unsigned char lead, unsigned char byte) {
  const unsigned char least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return byte >= least && byte <= most;
}

bool continues(const std::string& pending, unsigned char byte) {
  if (pending.size() == 1) return may_come_second(static_cast<unsigned char>(pending.front()), byte);
  return byte >= 0x80 && byte <= 0xBF;
}

bool is_control(const std::string& character) {
  const auto first = static_cast<unsigned char>(character.front());
  if (character.size() == 1) return (first < 0x20 && first != '\t' && first != '\n') || first == 0x7F;
  return first == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0;  // U+0080 to U+009F
}

}  // namespace

std::string ByteText::add(unsigned char byte) {
  std::string text;
  if (!pending_.empty() && !continues(pending_, byte)) text = finish();
  if (pending_.empty() && character_length(byte) == 0) return text + kReplacement;
  pending_ += static_cast<char>(byte);
  if (pending_.size() < character_length(static_cast<unsigned char>(pending_.front()))) return text;
  text += is_control(pending_) ? kReplacement : pending_;
  pending_.clear();
  return text;
}

std::string ByteText::finish() {
  std::string text = pending_.empty() ? "" : kReplacement;
  pending_.clear();
  return text;
}

std::string printable(std::string_view bytes) {
  ByteText characters;
  std::string text;
  for (const char byte : bytes) text += characters.add(static_cast<unsigned char>(byte));
  return text + characters.finish();
}

std::string printable_name(std::string_view bytes) {
  std::string text;
  for (const char c : printable(bytes)) text += c == '\n' || c == '\t' ? std::string(kReplacement) : std::string(1, c);
  return text;
}

std::string shortened(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  const auto is_inside = [&](size_t place) { return (static_cast<unsigned char>(text[place]) & 0xC0U) == 0x80U; };
  size_t end = most;
  while (end > 0 && is_inside(end)) --end;
  return text.substr(0, end) + "... (" + std::to_string(text.size()) + " bytes)";
}

}  // namespace lighthouse
