// What a model generates, written as it comes.
#pragma once

#include <cstdint>
#include <functional>
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

/// Writes the prompt and what follows it, each token as soon as it is known, and ends the line. Stops early when `out`
/// can no longer be written, or `goes_on`, which is asked after each token, says no. Throws as generate does.
void write_generated(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                     TokenFormat format, std::ostream& out, const std::function<bool()>& goes_on = {});

}  // namespace lighthouse::cli
