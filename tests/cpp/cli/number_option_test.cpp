#include "cli/number_option.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"

namespace lighthouse::cli {
namespace {

/// What "--x TEXT" sets, or why it is refused.
template <typename T, typename Range>
std::string read(const Range& range, const std::string& text) {
  CLI::App app;
  T value{};
  within(app.add_option("--x", value), range);
  try {
    app.parse(std::vector<std::string>{text, "--x"});
    return std::to_string(value);
  } catch (const UsageError& error) {
    return error.what();
  }
}

TEST(NumberOption, IntegersAreDecimal) {
  const IntegerRange any{0};
  EXPECT_EQ(read<int64_t>(any, "17"), "17");
  EXPECT_EQ(read<int64_t>(any, "010"), "10");  // 8 to the parser
  EXPECT_EQ(read<int64_t>(any, "9223372036854775807"), "9223372036854775807");
  for (const char* text : {"-1", "abc", "0x10", "1e3", "1.5", "nan", " 1", "1 "}) {
    EXPECT_EQ(read<int64_t>(any, text), std::string("--x ") + text + ": must be an integer at least 0");
  }
  EXPECT_EQ(read<int64_t>(any, ""), "--x \"\": must be an integer at least 0");
  EXPECT_EQ(read<int64_t>(any, "9223372036854775808"),
            "--x 9223372036854775808: must be an integer at least 0 and at most 9223372036854775807");
  EXPECT_EQ(read<int64_t>(IntegerRange{1, 8}, "99999999999999999999"),
            "--x 99999999999999999999: must be an integer from 1 to 8");
}

TEST(NumberOption, NumbersAreFinite) {
  const NumberRange share{.min = 0, .max = 1, .min_excluded = true};
  EXPECT_EQ(read<double>(share, "0.5"), "0.500000");
  for (const char* text : {"0", "-1", "nan", "inf", "1e999", "0x1p-1", "1.5"}) {
    EXPECT_EQ(read<double>(share, text),
              std::string("--x ") + text + ": must be a finite number above 0 and at most 1");
  }
}

}  // namespace
}  // namespace lighthouse::cli
