// Synthetic prompts that ask for something far back in them, for evaluation and as text to train on. Knows no torch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace lighthouse {

/// Text to fill a prompt with: exactly so many bytes, a function of `stream`.
using Filler = std::function<std::string(int64_t bytes, uint64_t stream)>;
/// A few sentences over and over, which say nothing.
Filler sentences_filler();

struct PromptOptions {
  int64_t length = 0;    ///< bytes that a model reads to answer: text, and answer but for its last byte
  double depth = 0;      ///< where in the filler the needle lies, from 0, before it, to 1, after it; copy has none
  int64_t num_keys = 4;  ///< multikey: needles, 2 to 10
  uint64_t seed = 1;
  int64_t trial = 0;  ///< prompts of other trials are unrelated
  Filler filler = sentences_filler();
};

/// The same options give the same prompt on every machine.
struct Prompt {
  std::string text;
  std::string answer;  ///< what right goes on from `text`
  int64_t source = 0;  ///< byte of `text` where the answer stands already
};

/// A digit hidden in filler, and the question for it; the answer is the digit. All three throw InvalidArgument, naming
/// the least length, when the length is too short for what is not filler.
Prompt passkey_prompt(const PromptOptions& options);

/// Digits under several names, all different, and the question for one: the needle of the depth; the others lie
/// anywhere in the filler.
Prompt multikey_prompt(const PromptOptions& options);

inline constexpr int64_t kCopyBytes = 64;  ///< hexadecimal digits of the string
inline constexpr int64_t kCueBytes = 16;   ///< of them, those that show which string it is
/// A string of random hexadecimal digits, filler, and the string again, length - kCopyBytes bytes after the first: its
/// first kCueBytes end the text, the others are the answer.
Prompt copy_prompt(const PromptOptions& options);

}  // namespace lighthouse
