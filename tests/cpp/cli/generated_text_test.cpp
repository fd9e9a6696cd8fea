// Bytes that a model generates, as text that a terminal can show.
#include "cli/generated_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "cli/commands.h"
#include "io/printable.h"
#include "lighthouse/check.h"

namespace lighthouse::cli {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

const std::string kBad = "\xEF\xBF\xBD";

/// What every byte adds, and the rest at the end.
std::vector<std::string> parts(const std::string& bytes) {
  ByteText text;
  std::vector<std::string> added;
  for (const char byte : bytes) added.push_back(text.add(static_cast<unsigned char>(byte)));
  added.push_back(text.finish());
  return added;
}

std::string whole(const std::string& bytes) {
  std::string text;
  for (const std::string& part : parts(bytes)) text += part;
  return text;
}

Decoder tiny_decoder(int64_t vocab_size = 256) {
  ModelConfig model{.vocab_size = vocab_size, .dim = 16, .num_layers = 1, .num_heads = 1, .num_kv_heads = 1};
  model.head_dim = 16;
  model.ffn_dim = 16;
  return {model, AttentionConfig{}, /*seed=*/1};
}

std::string generated(const Decoder& decoder, const std::vector<int64_t>& prompt, int64_t max_tokens) {
  std::ostringstream out;
  write_generated(decoder, prompt, {.max_tokens = max_tokens}, TokenFormat::of(decoder.config(), ""), out);
  return out.str();
}

TEST(ByteText, CharactersComeWhenTheyAreWhole) {
  EXPECT_THAT(parts("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),  // a, e acute, the euro sign, a smiling face
              ElementsAre("a", "", "\xC3\xA9", "", "", "\xE2\x82\xAC", "", "", "", "\xF0\x9F\x98\x80", ""));
}

TEST(ByteText, WhatIsNoCharacterIsReplaced) {
  EXPECT_EQ(whole("\x80"), kBad);                                   // nothing to continue
  EXPECT_EQ(whole("\xC3"), kBad);                                   // not continued
  EXPECT_EQ(whole("\xC3x"), kBad + "x");                            // by something else
  EXPECT_EQ(whole("\xE2\x82\xC3\xA9"), kBad + "\xC3\xA9");          // by another character
  EXPECT_EQ(whole("\xC0\x80"), kBad + kBad);                        // longer than need be
  EXPECT_EQ(whole("\xE0\x80\x80"), kBad + kBad + kBad);             // the same
  EXPECT_EQ(whole("\xED\xA0\x80"), kBad + kBad + kBad);             // a surrogate
  EXPECT_EQ(whole("\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);  // above U+10FFFF
  EXPECT_EQ(whole("\xFF"), kBad);
}

TEST(ByteText, WhatATerminalWouldObeyIsReplaced) {
  EXPECT_EQ(whole("a\tb\n"), "a\tb\n");
  EXPECT_EQ(whole("\033[2J\r\x7F"), kBad + "[2J" + kBad + kBad);
  EXPECT_EQ(whole(std::string(1, '\0')), kBad);
  EXPECT_EQ(whole("\xC2\x9B"), kBad);        // one-character form of ESC [
  EXPECT_EQ(whole("\xC2\xA0"), "\xC2\xA0");  // a space that does not break
}

TEST(ParseTokens, BytesAndNumbers) {
  EXPECT_THAT(parse_tokens("a\xFF", TokenFormat::bytes()), ElementsAre(97, 255));
  EXPECT_THAT(parse_tokens("17 4,2005\n", TokenFormat::numbers()), ElementsAre(17, 4, 2005));
  EXPECT_THAT(parse_tokens(" ", TokenFormat::numbers()), IsEmpty());
  for (const char* wrong : {"hello", "1 x", "12x", "1.5", "99999999999999999999"}) {
    EXPECT_THAT([&] { parse_tokens(wrong, TokenFormat::numbers()); },
                ThrowsMessage<UsageError>(HasSubstr("not a list of token numbers")))
        << wrong;
  }
}

TEST(WriteGenerated, PromptComesFirstAndALineEndsIt) {
  const Decoder decoder = tiny_decoder();
  EXPECT_EQ(generated(decoder, {'h', 'i'}, 0), "hi\n");
  EXPECT_TRUE(generated(decoder, {'h', 'i'}, 20).starts_with("hi"));
  EXPECT_EQ(generated(decoder, {'h', 'i'}, 20), generated(decoder, {'h', 'i'}, 20));
}

TEST(WriteGenerated, OtherVocabulariesAreNumbers) {
  const Decoder decoder = tiny_decoder(97);
  const std::string text = generated(decoder, {3, 96}, 2);
  EXPECT_TRUE(text.starts_with("3 96 ")) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 3) << text;
}

TEST(WriteGenerated, NothingIsWrittenOfAPromptThatIsRefused) {
  std::ostringstream out;
  EXPECT_THROW(write_generated(tiny_decoder(97), std::vector<int64_t>{97}, {}, TokenFormat::numbers(), out),
               InvalidArgument);
  EXPECT_EQ(out.str(), "");
}

TEST(WriteGenerated, StopsWhenNobodyReads) {
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  EXPECT_NO_THROW(write_generated(tiny_decoder(), std::vector<int64_t>{1}, {.max_tokens = int64_t{1} << 40},
                                  TokenFormat::bytes(), out));
}

}  // namespace
}  // namespace lighthouse::cli
