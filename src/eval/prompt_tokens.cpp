#include "eval/prompt_tokens.h"

#include <algorithm>
#include <set>
#include <utility>

#include "eval/tasks.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

constexpr double kUsualBytesPerToken = 4;  // of prose; the first guess

size_t common_prefix(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

PromptTokens::PromptTokens(const Task& task, const EvalSettings& settings, Filler filler, Tokenizer* tokenizer)
    : task_(task),
      settings_(settings),
      filler_(std::move(filler)),
      tokenizer_(tokenizer),
      bytes_per_token_(tokenizer == nullptr ? 1 : kUsualBytesPerToken) {}

std::vector<int64_t> PromptTokens::encode(const std::string& text) const {
  if (tokenizer_ != nullptr) return tokenizer_->encode(text);
  std::vector<int64_t> tokens;
  for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

Prompt PromptTokens::prompt_of(int64_t bytes, int64_t trial, int64_t length) const {
  try {
    return make_prompt(task_, settings_, filler_, bytes, trial);
  } catch (const InvalidArgument& error) {
    if (tokenizer_ == nullptr) throw;
    throw InvalidArgument(detail::concat(error.what(), "; ", length, " tokens are about ", bytes, " bytes here"));
  }
}

TokenPrompt PromptTokens::make(int64_t length, int64_t trial) {
  constexpr int kMostTries = 12;
  TokenPrompt best;
  for (int tries = 0; tries < kMostTries; ++tries) {
    const auto bytes = static_cast<int64_t>(static_cast<double>(length) * bytes_per_token_);
    TokenPrompt made{prompt_of(bytes, trial, length), {}};
    made.tokens = encode(made.prompt.text + made.prompt.answer);
    const int64_t read = static_cast<int64_t>(made.tokens.size()) - 1;
    if (read <= length && made.tokens.size() > best.tokens.size()) best = std::move(made);
    if (read <= length && length - read <= length / kSlack) break;
    // A little less than as many bytes as tokens are wanted, so that the next try is not too long by one.
    bytes_per_token_ = static_cast<double>(bytes) / static_cast<double>(read) *
                       (1 - 1 / static_cast<double>(4 * kSlack) * (tries + 1));
  }
  LIGHTHOUSE_CHECK(!best.tokens.empty(), task_.name, ": no prompt has at most ", length, " tokens; give longer ones");
  return best;
}

std::array<int64_t, 10> PromptTokens::digits(const Prompt& prompt) const {
  // What stands before the last line does not change how its end is cut.
  const std::string question = prompt.text.substr(prompt.text.rfind('\n') + 1);
  std::array<int64_t, 10> tokens{};
  const std::vector<int64_t> zero = encode(question + "0");
  for (size_t digit = 0; digit < tokens.size(); ++digit) {
    const std::vector<int64_t> all = encode(question + std::to_string(digit));
    LIGHTHOUSE_CHECK(all.size() == zero.size() && common_prefix(all, zero) + 1 >= all.size(), task_.name,
                     ": the tokenizer has no token of its own for each digit, which this task compares");
    tokens[digit] = all.back();
  }
  LIGHTHOUSE_CHECK(std::set(tokens.begin(), tokens.end()).size() == tokens.size(), task_.name,
                   ": the tokenizer has one token for several digits, which this task compares");
  return tokens;
}

PromptTokens::Answer PromptTokens::answer(const TokenPrompt& prompt) const {
  const auto answer_bytes = static_cast<int64_t>(prompt.prompt.answer.size());
  if (tokenizer_ == nullptr) return {prompt.prompt.text.size(), answer_bytes};
  constexpr size_t kContext = 32;  // tokens that are decoded before it, as the first of a text may lose its space
  const size_t begin = common_prefix(encode(prompt.prompt.text), prompt.tokens);
  const size_t before = begin - std::min(begin, kContext);
  const std::span<const int64_t> tokens(prompt.tokens);
  const auto bytes = [&](size_t end) {
    return static_cast<int64_t>(tokenizer_->decode(tokens.subspan(before, end - before)).size());
  };
  return {begin, bytes(tokens.size()) - bytes(begin)};
}

int64_t PromptTokens::copy_distance(const TokenPrompt& prompt) const {
  const std::string string = prompt.prompt.text.substr(0, 1 + kCopyBytes);  // behind a line end
  return static_cast<int64_t>(prompt.tokens.size()) - static_cast<int64_t>(encode(string).size());
}

int64_t text_bytes(Tokenizer& tokenizer, std::vector<int64_t> tokens) {
  const std::vector<int64_t>& ends = tokenizer.ends();
  std::erase_if(tokens, [&](int64_t token) { return std::find(ends.begin(), ends.end(), token) != ends.end(); });
  return static_cast<int64_t>(tokenizer.decode(tokens).size());
}

}  // namespace lighthouse
