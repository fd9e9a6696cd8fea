// What is read beside a tokenizer; tests/python/test_run_tokenizer.py runs one.
#include "data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/io/temporary_folder.h"
#include "io/errors.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class EndTokens : public ::testing::Test {
 protected:
  std::vector<int64_t> of(const std::string& generation_config) {
    write_bytes(folder_ / "generation_config.json", generation_config);
    return end_tokens(folder_.path());
  }
  TemporaryFolder folder_;
};

TEST_F(EndTokens, AreOneSeveralOrNone) {
  EXPECT_THAT(end_tokens(folder_.path()), IsEmpty());
  EXPECT_THAT(of(R"({"eos_token_id": 2})"), ElementsAre(2));
  EXPECT_THAT(of(R"({"eos_token_id": [128001, 128009]})"), ElementsAre(128001, 128009));
  EXPECT_THAT(of(R"({"eos_token_id": -1})"), IsEmpty());
  write_bytes(folder_ / "config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(of("{}"), ElementsAre(7));
  EXPECT_THAT(of(R"({"eos_token_id": null})"), ElementsAre(7));
}

// 1e300 as an integer is undefined, and a list in the place of the object was an error of the JSON library's.
TEST_F(EndTokens, ThatAreNoTokensAreRefusedByFileAndValue) {
  for (const char* ends :
       {"1e300", "[1e300]", "2.5", "\"</s>\"", "[[2]]", "18446744073709551615", "true", "{\"a\": 1.5}"}) {
    EXPECT_THAT(message_of<DamagedFile>([&] { of(std::string(R"({"eos_token_id": )") + ends + "}"); }),
                AllOf(HasSubstr("generation_config.json"), HasSubstr("eos_token_id")))
        << ends;
  }
  for (const char* text : {"[]", "3", "null"}) {
    EXPECT_THAT(message_of<DamagedFile>([&] { of(text); }),
                AllOf(HasSubstr("generation_config.json"), HasSubstr("not a JSON object")))
        << text;
  }
}

}  // namespace
}  // namespace lighthouse
