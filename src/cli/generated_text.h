// What a model generates, written as it comes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer.h"
#include "model/generate.h"

namespace lighthouse::cli {

/// How tokens are read and shown: by a tokenizer, as bytes of text, or as numbers.
class TokenFormat {
 public:
  static TokenFormat bytes() { return {true, nullptr}; }
  static TokenFormat numbers() { return {false, nullptr}; }
  /// By the tokenizer in `folder`; of an empty path bytes for a vocabulary of 256 tokens, else numbers. Throws as
  /// Tokenizer does.
  static TokenFormat of(const ModelConfig& model, const std::filesystem::path& folder);

  bool is_bytes() const { return bytes_; }
  Tokenizer* tokenizer() const { return tokenizer_.get(); }  ///< null: none
  std::vector<int64_t> ends() const { return tokenizer_ ? tokenizer_->ends() : std::vector<int64_t>(); }

 private:
  TokenFormat(bool bytes, std::shared_ptr<Tokenizer> tokenizer) : bytes_(bytes), tokenizer_(std::move(tokenizer)) {}
  bool bytes_;
  std::shared_ptr<Tokenizer> tokenizer_;
};

/// The tokens of a prompt. Throws UsageError when `text` should be numbers, for the reason `why`, and is not.
std::vector<int64_t> parse_tokens(const std::string& text, const TokenFormat& format, const std::string& why = "");

/// Writes the prompt and what follows it, each token as soon as it is known, and ends the line. Stops early at one of
/// `ends`, which is not written, when `out` can no longer be written, and when `goes_on`, which is asked after each
/// token, says no. Throws as generate does.
void write_generated(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                     const TokenFormat& format, std::ostream& out, std::span<const int64_t> ends = {},
                     const std::function<bool()>& goes_on = {});

}  // namespace lighthouse::cli
