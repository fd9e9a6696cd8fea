#include "io/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/io/memory_taken.h"
#include "cpp/io/temporary_folder.h"
#include "io/errors.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(JsonText, ParsesNestedObjects) {
  EXPECT_EQ(parse_json(R"({"a": {"x": 1}, "b": {"x": [2, {"x": 3}]}})", "f")["b"]["x"][1]["x"], 3);
}

TEST(JsonText, RefusesRepeatedNames) {
  for (const char* text : {R"({"a": 1, "a": 1})", R"({"b": {"a": 1, "a": 2}})", R"([{"a": {}, "c": 0, "a": []}])"}) {
    EXPECT_THAT(message_of<DamagedFile>([&] { parse_json(text, "file.json"); }),
                AllOf(HasSubstr("file.json"), HasSubstr("\"a\""), HasSubstr("twice")));
  }
}

TEST(JsonText, RefusesWhatIsNotJson) {
  for (const std::string& text : {std::string(), std::string("{"), std::string("{} x"), std::string("{\"\xff\": 1}"),
                                  std::string("{}\0", 3), std::string("\xef\xbb\xbf{}")}) {
    EXPECT_THAT(message_of<DamagedFile>([&] { parse_json(text, "file.json"); }), HasSubstr("file.json: not JSON"));
  }
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

// dump() and other functions of values recurse: at 58,000 they ended the program.
TEST(JsonText, LimitsTheDepth) {
  EXPECT_NO_THROW(parse_json(nested(kMaxJsonDepth), "file.json"));
  std::string objects = "1";
  for (int depth = 0; depth < 58'000; ++depth) objects = "{\"\":" + std::move(objects) + "}";
  for (const std::string& text : {nested(kMaxJsonDepth + 1), nested(58'000), std::string(1'000'000, '['), objects}) {
    EXPECT_EQ(message_of<DamagedFile>([&] { parse_json(text, "file.json"); }), "file.json: nested more than 128 deep");
  }
}

TEST(JsonText, LeavesNumbersOfErrorsOut) {
  EXPECT_THAT(message_of<DamagedFile>([&] { parse_json("{", "f"); }),
              AllOf(HasSubstr("f: not JSON: parse error at line 1"), Not(HasSubstr("json.exception"))));
  EXPECT_THAT(message_of<DamagedFile>([&] { reading("f", [] { return nlohmann::json("x").get<int>(); }); }),
              AllOf(HasSubstr("f: type must be number"), Not(HasSubstr("json.exception"))));
}

TEST(JsonText, SaysLongErrorsInShort) {
  const std::string text = "{\"" + std::string(1'000'000, 'x');
  EXPECT_LT(message_of<DamagedFile>([&] { parse_json(text, "file.json"); }).size(), 400);
}

TEST(JsonText, HandsOverMembers) {
  std::vector<std::pair<std::string, nlohmann::json>> members;
  const auto take = [&](const std::string& name, const nlohmann::json& value) { members.emplace_back(name, value); };
  const std::string text = R"({"a": 1, "b": {"x": [2, {"x": 3}]}, "c": [], "a": null})";
  read_json_members(text, "f", take);
  const decltype(members) expected = {
      {"a", 1}, {"b", {{"x", {2, {{"x", 3}}}}}}, {"c", nlohmann::json::array()}, {"a", nullptr}};
  EXPECT_EQ(members, expected);
  for (const char* other : {"[]", "12", "\"a\"", "null"}) {
    EXPECT_EQ(message_of<DamagedFile>([&] { read_json_members(other, "f", take); }), "f: not a JSON object");
  }
  EXPECT_THAT(message_of<DamagedFile>([&] { read_json_members(R"({"a": {"x": 1, "x": 1}})", "f", take); }),
              HasSubstr("\"x\" stands twice"));
}

TEST(JsonText, LeavesOutMembersOfAName) {
  const std::string text =
      R"({"a": [1, {"b": [1, {"b": 2}], "c": 3}], "b": 4, "d": {"b": {"e": {}}, "f": ["b"]}, "b": null})";
  const nlohmann::json expected = {{"a", {1, {{"c", 3}}}}, {"d", {{"f", {"b"}}}}};
  EXPECT_EQ(parse_json(text, "f", {.without = "b"}), expected);
  const std::string deep = "{\"b\":" + std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']') + "}";
  EXPECT_THAT(message_of<DamagedFile>([&] { parse_json(deep, "f", {.without = "b"}); }),
              HasSubstr("nested more than 128"));
  EXPECT_THAT(message_of<DamagedFile>([&] { parse_json(R"({"b": [1, }, "c": 1})", "f", {.without = "b"}); }),
              HasSubstr("not JSON"));
}

/// So many values of a kind, or members, whose names end in their number.
std::string many(size_t count, const std::string& begin, const std::string& end, bool is_object) {
  std::string text(1, is_object ? '{' : '[');
  for (size_t i = 0; i < count; ++i) text += (i == 0 ? "" : ",") + begin + (is_object ? std::to_string(i) : "") + end;
  return text + (is_object ? '}' : ']');
}

TEST(JsonText, ValuesTakeLittleMemoryOrAreRefused) {
  constexpr size_t kMany = 1'200'000, kFew = 200'000;
  const std::string long_text(200, 'a');
  for (const size_t count : {kMany, kFew}) {
    const std::string texts[] = {many(count, "0", "", false),
                                 many(count, "[]", "", false),
                                 many(count, "{}", "", false),
                                 many(count, "\"\"", "", false),
                                 many(count, "[0]", "", false),
                                 many(count, "{\"\":0}", "", false),
                                 many(count, "\"", "\":0", true),
                                 many(count, "\"", "\":{}", true),
                                 many(count, "\"aaaaaaaaaaaaaaaa\"", "", false),
                                 many(count / 4, "\"" + long_text, "\":\"" + long_text + "\"", true)};
    for (const std::string& text : texts) {
      std::string refusal;
      const auto read = [&] {
        try {
          parse_json(text, "f");
        } catch (const DamagedFile& error) {
          refusal = error.what();
        }
      };
      EXPECT_LE(memory_taken_by(read), kJsonMemory) << text.substr(0, 40);
      read();
      EXPECT_EQ(refusal, count == kMany ? "f: its values take more than 50331648 bytes of memory" : "")
          << text.substr(0, 40);
    }
  }
}

TEST(JsonText, TakesWholeNumbersOnly) {
  const nlohmann::json good = nlohmann::json::parse(R"({"n": 0, "m": 9223372036854775807})");
  EXPECT_EQ(whole_member(good, "n"), 0);
  EXPECT_EQ(whole_member(good, "m"), 9223372036854775807);
  EXPECT_EQ(message_of<DamagedFile>([&] { whole_member(good, "k"); }), "no k");
  EXPECT_EQ(message_of<DamagedFile>([&] { whole_member(nlohmann::json::array(), "k"); }), "[] is not an object");
  for (const char* text : {"12.9", "1e300", "1.0", "-1", "9223372036854775808", "1e999", "\"1\"", "null", "[1]"}) {
    EXPECT_THAT(message_of<DamagedFile>([&] {
                  reading("f", [&] { return whole_member(parse_json(std::string("{\"n\":") + text + "}", "f"), "n"); });
                }),
                HasSubstr("f: "))
        << text;
  }
}

TEST(JsonText, QuotesLongNamesInShort) {
  EXPECT_EQ(quoted(std::string(299, 'a') + "\xc3\xa9" + std::string(100, 'b')),
            "\"" + std::string(299, 'a') + "... (401 bytes)\"");
  EXPECT_EQ(json_string(std::string(1000, 'a')).size(), 1002U);
}

TEST(JsonText, QuotesForTerminals) { EXPECT_EQ(quoted("a\x1b[31m\"\xff"), "\"a\\u001b[31m\\\"\xef\xbf\xbd\""); }

}  // namespace
}  // namespace lighthouse
