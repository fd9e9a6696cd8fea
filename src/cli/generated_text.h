// What a model generates, written as it comes.
#pragma once

#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "model/generate.h"

namespace lighthouse::cli {

/// How tokens are read and shown: as bytes of text, or as numbers.
enum class TokenFormat { kBytes, kNumbers };
/// Bytes for a vocabulary of 256 tokens, else numbers: other vocabularies belong to a tokenizer that is not here.
TokenFormat token_format(const ModelConfig& model);

/// The tokens of a prompt. Throws UsageError when `text` should be numbers and is not.
std::vector<int64_t> parse_tokens(const std::string& text, TokenFormat format);

/// Bytes as text that any terminal can show: valid UTF-8, in which U+FFFD stands for every byte that is not part of a
/// character, and for control characters other than tab and newline, which a terminal would obey.
class ByteText {
 public:
  /// The text that is certain after this byte: "" in the middle of a character.
  std::string add(unsigned char byte);
  std::string finish();  ///< what is left of a character that did not end

 private:
  std::string pending_;  ///< the first bytes of a character
};

/// Writes the prompt and what follows it, each token as soon as it is known, and ends the line. Stops early when `out`
/// can no longer be written. Throws as generate does.
void write_generated(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                     TokenFormat format, std::ostream& out);

}  // namespace lighthouse::cli
