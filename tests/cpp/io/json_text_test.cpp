#include "io/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/io/temporary_folder.h"
#include "io/errors.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

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
                                  std::string("{}\0", 3), std::string(100'000, '[')}) {
    EXPECT_THAT(message_of<DamagedFile>([&] { parse_json(text, "file.json"); }), HasSubstr("file.json: not JSON"));
  }
}

TEST(JsonText, QuotesForTerminals) { EXPECT_EQ(quoted("a\x1b[31m\"\xff"), "\"a\\u001b[31m\\\"\xef\xbf\xbd\""); }

}  // namespace
}  // namespace lighthouse
