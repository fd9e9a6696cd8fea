// Prompts as the tokens of a model: bytes, or by its tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "eval/prompts.h"

namespace lighthouse {

struct Task;
struct EvalSettings;

/// A prompt, and the tokens of its text and answer, one after another.
struct TokenPrompt {
  Prompt prompt;
  std::vector<int64_t> tokens;
};

/// Makes the prompts of one task.
class PromptTokens {
 public:
  /// `tokenizer` may be null: tokens are bytes then. All of them outlive this.
  PromptTokens(const Task& task, const EvalSettings& settings, Filler filler, Tokenizer* tokenizer);

  /// Prompt number `trial` of which a model reads `length` tokens to answer; by a tokenizer at most so many, and less
  /// by 1/kSlack of them where it can be. Throws InvalidArgument where there is no room for what is not filler.
  TokenPrompt make(int64_t length, int64_t trial);

  /// [10] the tokens of the digits where the question of `prompt` asks for one. Throws InvalidArgument for a tokenizer
  /// that has no token of its own for each.
  std::array<int64_t, 10> digits(const Prompt& prompt) const;

  struct Answer {
    size_t begin;   ///< first token that counts, none of them of the text alone
    int64_t bytes;  ///< of text in them and those that follow
  };
  /// Which tokens are the answer. A token that holds the end of the text too counts, with all its bytes.
  Answer answer(const TokenPrompt& prompt) const;

  /// Tokens from the string of a prompt of copy to where it stands again.
  int64_t copy_distance(const TokenPrompt& prompt) const;

  /// Whether prompts of one length have as many tokens.
  bool are_equally_long() const { return tokenizer_ == nullptr; }

  static constexpr int64_t kSlack = 64;

 private:
  std::vector<int64_t> encode(const std::string& text) const;
  Prompt prompt_of(int64_t bytes, int64_t trial, int64_t length) const;

  const Task& task_;
  const EvalSettings& settings_;
  Filler filler_;
  Tokenizer* tokenizer_;
  double bytes_per_token_ = 1;  ///< of the prompts so far
};

/// Bytes of text in tokens; ends of texts have none. To within a character at either end of a sequence.
int64_t text_bytes(Tokenizer& tokenizer, std::vector<int64_t> tokens);

}  // namespace lighthouse
