#include "cli/number_option.h"

#include <CLI/CLI.hpp>

#include "cli/commands.h"

namespace lighthouse::cli {
namespace {

[[noreturn]] void refuse(const CLI::Option& option, const std::string& given, const std::string& expected) {
  throw UsageError(option.get_name() + " " + (given.empty() ? "\"\"" : given) + ": must be " + expected);
}

}  // namespace

CLI::Option* within(CLI::Option* option, const IntegerRange& range) {
  const auto read = [option, range](std::string& text) {
    const auto value = parse_number<int64_t>(text);
    if (!value || !allowed(range, *value)) refuse(*option, text, expectation(range, text));
    text = std::to_string(*value);
    return std::string();
  };
  return option->transform(CLI::Validator(read, ""));
}

CLI::Option* within(CLI::Option* option, const NumberRange& range) {
  const auto read = [option, range](std::string& text) {
    const auto value = parse_number<double>(text);
    if (!value || !allowed(range, *value)) refuse(*option, text, expectation(range));
    return std::string();
  };
  return option->transform(CLI::Validator(read, ""));
}

}  // namespace lighthouse::cli
