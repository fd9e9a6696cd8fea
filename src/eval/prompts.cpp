#include "eval/prompts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "lighthouse/check.h"
#include "model/random.h"

namespace lighthouse {
namespace {

/// The random numbers of one prompt, one after another.
class Draws {
 public:
  Draws(const char* task, const PromptOptions& options)
      : stream_(random_stream(options.seed, detail::concat(task, '/', options.length, '/', options.trial))) {}

  uint64_t filler_stream() const { return random_stream(stream_, "filler"); }
  int64_t below(int64_t limit) {
    return static_cast<int64_t>(random_bits(stream_, next_++) % static_cast<uint64_t>(limit));
  }
  /// `count` different numbers of [0, limit) in random order.
  std::vector<int64_t> different(int64_t count, int64_t limit) {
    std::vector<int64_t> numbers(static_cast<size_t>(limit));
    for (int64_t number = 0; number < limit; ++number) numbers[static_cast<size_t>(number)] = number;
    for (int64_t place = 0; place < count; ++place) {
      std::swap(numbers[static_cast<size_t>(place)], numbers[static_cast<size_t>(place + below(limit - place))]);
    }
    numbers.resize(static_cast<size_t>(count));
    return numbers;
  }

 private:
  uint64_t stream_;
  uint64_t next_ = 0;
};

struct Needle {
  std::string text;
  double depth;
};

std::string digit(int64_t value) { return std::to_string(value); }

void check_options(const char* task, const PromptOptions& options, int64_t fixed_bytes) {
  LIGHTHOUSE_CHECK(options.length >= fixed_bytes, task, ": a length of ", options.length,
                   " bytes leaves no room for the prompt; it must be at least ", fixed_bytes);
  LIGHTHOUSE_CHECK(options.depth >= 0 && options.depth <= 1, task, ": depth ", options.depth, " must be from 0 to 1");
}

/// The last place at or before `place` where a word of the text begins.
size_t word_boundary(std::string_view text, size_t place) {
  if (place == text.size()) return place;
  while (place > 0 && text[place - 1] != ' ' && text[place - 1] != '\n') --place;
  return place;
}

/// intro, filler with the needles in it, question: `length` bytes. The answer is the last byte but two of the first
/// needle (before ".\n").
Prompt retrieval_prompt(const char* task, const PromptOptions& options, const Draws& draws, const std::string& intro,
                        std::vector<Needle> needles, const std::string& question) {
  auto fixed_bytes = static_cast<int64_t>(intro.size() + question.size());
  for (const Needle& needle : needles) fixed_bytes += static_cast<int64_t>(needle.text.size());
  check_options(task, options, fixed_bytes);
  const std::string filler = options.filler(options.length - fixed_bytes, draws.filler_stream());
  const std::string asked = needles.front().text;
  std::stable_sort(needles.begin(), needles.end(), [](const Needle& a, const Needle& b) { return a.depth < b.depth; });

  Prompt prompt;
  prompt.text = intro;
  size_t done = 0;  // bytes of filler
  for (const Needle& needle : needles) {
    const auto wanted = static_cast<size_t>(std::llround(needle.depth * static_cast<double>(filler.size())));
    const size_t place = std::max(word_boundary(filler, wanted), done);
    prompt.text += filler.substr(done, place - done) + needle.text;
    done = place;
    if (needle.text == asked) prompt.source = static_cast<int64_t>(prompt.text.size()) - 3;
  }
  prompt.text += filler.substr(done) + question;
  prompt.answer = prompt.text.substr(static_cast<size_t>(prompt.source), 1);
  return prompt;
}

}  // namespace

Filler sentences_filler() {
  return [](int64_t bytes, uint64_t /*stream*/) {
    constexpr std::string_view kSentences = "The grass is green. The sky is blue. The sun is yellow. The day is long. ";
    std::string text;
    while (static_cast<int64_t>(text.size()) < bytes) text += kSentences;
    text.resize(static_cast<size_t>(bytes));
    return text;
  };
}

Prompt passkey_prompt(const PromptOptions& options) {
  Draws draws("passkey", options);
  const std::string key = digit(draws.below(10));
  return retrieval_prompt(
      "passkey", options, draws, "Somewhere in this text is a pass key. It is asked for at the end.\n",
      {{"The pass key is " + key + ".\n", options.depth}}, "\nWhat is the pass key? The pass key is ");
}

Prompt multikey_prompt(const PromptOptions& options) {
  constexpr std::array kNames = {"amber", "birch", "cedar", "delta", "ember",
                                 "frost", "grove", "heron", "ivory", "jewel"};
  constexpr auto kMost = static_cast<int64_t>(kNames.size());
  LIGHTHOUSE_CHECK(options.num_keys >= 2 && options.num_keys <= kMost, "multikey: ", options.num_keys,
                   " keys; must be 2 to ", kMost);
  Draws draws("multikey", options);
  const std::vector<int64_t> names = draws.different(options.num_keys, kMost);
  const std::vector<int64_t> values = draws.different(options.num_keys, 10);
  std::vector<Needle> needles;
  for (size_t key = 0; key < names.size(); ++key) {
    constexpr int64_t kSteps = 1 << 20;
    const double anywhere = static_cast<double>(draws.below(kSteps)) / kSteps;
    needles.push_back(
        {std::string("The key of ") + kNames.at(static_cast<size_t>(names[key])) + " is " + digit(values[key]) + ".\n",
         key == 0 ? options.depth : anywhere});
  }
  const std::string asked = kNames.at(static_cast<size_t>(names.front()));
  return retrieval_prompt("multikey", options, draws, "Somewhere in this text are keys. One is asked for at the end.\n",
                          std::move(needles), "\nWhat is the key of " + asked + "? The key of " + asked + " is ");
}

Prompt copy_prompt(const PromptOptions& options) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  constexpr int64_t kFixedBytes = 2 * kCopyBytes + 2;  // the string twice and three line ends, less the last byte
  check_options("copy", options, kFixedBytes);
  Draws draws("copy", options);
  std::string key;
  while (static_cast<int64_t>(key.size()) < kCopyBytes) key += kDigits[static_cast<size_t>(draws.below(16))];
  Prompt prompt;
  prompt.text = "\n" + key + "\n" + options.filler(options.length - kFixedBytes, draws.filler_stream()) + "\n" +
                key.substr(0, kCueBytes);
  prompt.answer = key.substr(kCueBytes);
  prompt.source = 1 + kCueBytes;
  return prompt;
}

}  // namespace lighthouse
