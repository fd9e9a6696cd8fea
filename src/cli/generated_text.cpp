#include "cli/generated_text.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "cli/commands.h"
#include "io/printable.h"

namespace lighthouse::cli {
namespace {

constexpr int64_t kByteVocabulary = 256;

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

std::vector<int64_t> parse_tokens(const std::string& text, const TokenFormat& format, const std::string& why) {
  if (format.tokenizer() != nullptr) return format.tokenizer()->encode(text);
  std::vector<int64_t> tokens;
  if (format.is_bytes()) {
    for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
    return tokens;
  }
  constexpr std::string_view kSeparators = " ,\n";
  const char* const end = text.data() + text.size();
  for (const char* place = text.data(); place != end;) {
    if (kSeparators.find(*place) != std::string_view::npos) {
      ++place;
      continue;
    }
    const char* const word_end = std::find_first_of(place, end, kSeparators.begin(), kSeparators.end());
    const auto [next, error] = std::from_chars(place, word_end, tokens.emplace_back());
    if (error != std::errc() || next != word_end) {
      const std::string word = shortened(std::string(place, word_end));
      throw UsageError("the prompt is not a list of token numbers, as 17 4 2005: '" + word + "' is " +
                       (error == std::errc::result_out_of_range ? "beyond 64 bits" : "none") +
                       (why.empty() ? "" : "; " + why));
    }
    place = next;
  }
  return tokens;
}

void write_generated(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                     const TokenFormat& format, std::ostream& out, std::span<const int64_t> ends,
                     const std::function<bool()>& goes_on) {
  TokenText text(format);
  std::string shown_prompt;
  for (const int64_t token : prompt) shown_prompt += text.add(token);
  bool prompt_shown = false;  // not before generate has accepted it
  const auto show = [&](int64_t token) {
    if (!prompt_shown) out << shown_prompt;
    prompt_shown = true;
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return false;
    out << text.add(token) << std::flush;
    return out.good() && (!goes_on || goes_on());
  };
  generate(decoder, prompt, options, show);
  out << (prompt_shown ? "" : shown_prompt) << text.finish() << std::endl;
}

}  // namespace lighthouse::cli
