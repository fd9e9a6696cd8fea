#include "eval/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cpp/io/temporary_folder.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

using Maker = Prompt (*)(const PromptOptions& options);
constexpr Maker kMakers[] = {passkey_prompt, multikey_prompt, copy_prompt};

PromptOptions options(int64_t length, double depth = 0.5, int64_t trial = 0) {
  PromptOptions result;
  result.length = length;
  result.depth = depth;
  result.trial = trial;
  return result;
}

TEST(Prompts, AreAFunctionOfTheirOptions) {
  for (const Maker make : kMakers) {
    const Prompt first = make(options(600));
    EXPECT_EQ(make(options(600)).text, first.text);
    EXPECT_EQ(make(options(600)).answer, first.answer);
    std::set<std::string> texts;
    for (int64_t trial = 0; trial < 20; ++trial) texts.insert(make(options(600, 0.5, trial)).text);
    EXPECT_GT(texts.size(), 5U) << "trials must differ: ten digits, or many strings";
    PromptOptions other = options(600);
    other.seed = 2;
    texts.clear();
    for (other.trial = 0; other.trial < 20; ++other.trial) texts.insert(make(other).text + make(options(600)).text);
    EXPECT_GT(texts.size(), 5U);
  }
}

TEST(Prompts, HaveTheLengthAskedForAndTheAnswerWhereTheySay) {
  for (const Maker make : kMakers) {
    for (const int64_t length : {300, 301, 1000, 5000}) {
      for (const double depth : {0.0, 0.15, 0.5, 1.0}) {
        for (int64_t trial = 0; trial < 5; ++trial) {
          const Prompt prompt = make(options(length, depth, trial));
          EXPECT_EQ(static_cast<int64_t>(prompt.text.size() + prompt.answer.size()) - 1, length);
          EXPECT_EQ(prompt.text.substr(static_cast<size_t>(prompt.source), prompt.answer.size()), prompt.answer);
        }
      }
    }
  }
}

TEST(Passkey, LiesAtItsDepthAndIsAskedForAtTheEnd) {
  for (const double depth : {0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0}) {
    const Prompt prompt = passkey_prompt(options(10000, depth));
    EXPECT_THAT(prompt.text, EndsWith("What is the pass key? The pass key is "));
    EXPECT_THAT(prompt.answer, MatchesRegex("[0-9]"));
    EXPECT_THAT(prompt.text.substr(static_cast<size_t>(prompt.source) - 16), StartsWith("The pass key is ")) << depth;
    EXPECT_NEAR(static_cast<double>(prompt.source) / 10000, depth, 0.015);  // of intro and question
  }
}

TEST(Passkey, AnswersAreAllDigits) {
  std::set<std::string> answers;
  for (int64_t trial = 0; trial < 200; ++trial) answers.insert(passkey_prompt(options(300, 0.5, trial)).answer);
  EXPECT_EQ(answers.size(), 10U);
}

TEST(Multikey, HoldsDifferentDigitsUnderDifferentNames) {
  for (int64_t trial = 0; trial < 20; ++trial) {
    PromptOptions asked = options(2000, 0.7, trial);
    asked.num_keys = 5;
    const Prompt prompt = multikey_prompt(asked);
    const std::string needle = "The key of ";
    std::set<std::string> names, digits;
    for (size_t place = prompt.text.find(needle); place != std::string::npos;
         place = prompt.text.find(needle, place + 1)) {
      const size_t name_end = prompt.text.find(" is ", place);
      if (name_end + 4 == prompt.text.size()) break;  // the question
      names.insert(prompt.text.substr(place, name_end - place));
      digits.insert(prompt.text.substr(name_end + 4, 1));
    }
    EXPECT_EQ(names.size(), 5U) << prompt.text;
    EXPECT_EQ(digits.size(), 5U) << prompt.text;
    const size_t question = prompt.text.rfind(needle);
    const std::string name = prompt.text.substr(question, prompt.text.size() - question);
    EXPECT_EQ(prompt.text.find(name) + name.size(), static_cast<size_t>(prompt.source)) << prompt.text;
    EXPECT_NEAR(static_cast<double>(prompt.source) / 2000, 0.7, 0.1);
  }
  PromptOptions wrong = options(2000);
  for (const int64_t keys : {1, 11}) {
    wrong.num_keys = keys;
    EXPECT_THAT(message_of<InvalidArgument>([&] { multikey_prompt(wrong); }), HasSubstr("2 to 10"));
  }
}

TEST(Copy, RepeatsTheStringAtTheDistance) {
  for (const int64_t length : {130, 131, 1000}) {
    const Prompt prompt = copy_prompt(options(length));
    const std::string all = prompt.text + prompt.answer;
    const std::string key = all.substr(all.size() - kCopyBytes);
    EXPECT_THAT(key, MatchesRegex("[0-9a-f]+"));
    EXPECT_EQ(all.find(key) + static_cast<size_t>(length - kCopyBytes), all.size() - kCopyBytes);
    EXPECT_EQ(prompt.answer, key.substr(kCueBytes));
  }
}

TEST(Prompts, TakeAnyFiller) {
  for (const Maker make : kMakers) {
    PromptOptions asked = options(500);
    int64_t bytes_asked = 0;
    asked.filler = [&](int64_t bytes, uint64_t /*stream*/) {
      bytes_asked = bytes;
      return std::string(static_cast<size_t>(bytes), '#');
    };
    const std::string text = make(asked).text;
    EXPECT_EQ(std::count(text.begin(), text.end(), '#'), bytes_asked);
    EXPECT_GT(bytes_asked, 200);
    EXPECT_THAT(text, Not(HasSubstr("grass")));
  }
}

TEST(Prompts, TooShortIsRefusedWithTheLeastLength) {
  for (const Maker make : kMakers) {
    const std::string message = message_of<InvalidArgument>([&] { make(options(20)); });
    EXPECT_THAT(message, AllOf(HasSubstr("20 bytes"), HasSubstr("at least ")));
    const int64_t least = std::stoll(message.substr(message.rfind(' ')));
    EXPECT_EQ(static_cast<int64_t>(make(options(least)).text.size() + make(options(least)).answer.size()) - 1, least);
    EXPECT_THROW(make(options(least - 1)), InvalidArgument);
  }
  EXPECT_THROW(passkey_prompt(options(1000, 1.5)), InvalidArgument);
  EXPECT_THROW(passkey_prompt(options(1000, NAN)), InvalidArgument);
}

}  // namespace
}  // namespace lighthouse
