#include "cli/generated_text.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "cli/commands.h"

namespace lighthouse::cli {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr int64_t kByteVocabulary = 256;

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

/// One token as text, or what is certain of it.
class TokenText {
 public:
  explicit TokenText(const TokenFormat& format) : is_bytes_(format.is_bytes()) {
    if (format.tokenizer() != nullptr) stream_.emplace(*format.tokenizer());
  }

  std::string add(int64_t token) {
    if (stream_) return shown(stream_->add(token));
    if (is_bytes_) return bytes_.add(static_cast<unsigned char>(token));
    const std::string separator = first_ ? "" : " ";
    first_ = false;
    return separator + std::to_string(token);
  }
  std::string finish() { return (stream_ ? shown(stream_->finish()) : "") + bytes_.finish(); }

 private:
  std::string shown(const std::string& text) {
    std::string safe;
    for (const char byte : text) safe += bytes_.add(static_cast<unsigned char>(byte));
    return safe;
  }

  bool is_bytes_;
  std::optional<TextStream> stream_;
  ByteText bytes_;
  bool first_ = true;
};

}  // namespace

TokenFormat TokenFormat::of(const ModelConfig& model, const std::filesystem::path& folder) {
  if (!folder.empty()) return {false, std::make_shared<Tokenizer>(folder)};
  return model.vocab_size == kByteVocabulary ? bytes() : numbers();
}

std::vector<int64_t> parse_tokens(const std::string& text, const TokenFormat& format) {
  if (format.tokenizer() != nullptr) return format.tokenizer()->encode(text);
  std::vector<int64_t> tokens;
  if (format.is_bytes()) {
    for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
    return tokens;
  }
  const char* const end = text.data() + text.size();
  for (const char* place = text.data(); place != end;) {
    if (*place == ' ' || *place == ',' || *place == '\n') {
      ++place;
      continue;
    }
    const auto [next, error] = std::from_chars(place, end, tokens.emplace_back());
    const bool ends = next == end || *next == ' ' || *next == ',' || *next == '\n';
    if (error != std::errc() || !ends) {
      throw UsageError(
          "the prompt is not a list of token numbers; this model has no tokenizer here and its vocabulary is not of "
          "bytes, so give numbers, as 17 4 2005");
    }
    place = next;
  }
  return tokens;
}

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

void write_generated(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                     const TokenFormat& format, std::ostream& out, std::span<const int64_t> ends) {
  TokenText text(format);
  std::string shown_prompt;
  for (const int64_t token : prompt) shown_prompt += text.add(token);
  bool prompt_shown = false;  // not before generate has accepted it
  const auto show = [&](int64_t token) {
    if (!prompt_shown) out << shown_prompt;
    prompt_shown = true;
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return false;
    out << text.add(token) << std::flush;
    return out.good();
  };
  generate(decoder, prompt, options, show);
  out << (prompt_shown ? "" : shown_prompt) << text.finish() << std::endl;
}

}  // namespace lighthouse::cli
