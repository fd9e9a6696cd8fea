// Options of the command line whose values are numbers.
#pragma once

#include "config/limits.h"

namespace CLI {
class Option;
}  // namespace CLI

namespace lighthouse::cli {

/// `option`, each of whose values must be a decimal number in the range: it is refused otherwise with a message that
/// gives option, value and range, "--seed -1: must be an integer at least 0". The parser itself takes 010 for 8, and
/// the largest number for a larger one.
CLI::Option* within(CLI::Option* option, const IntegerRange& range);
CLI::Option* within(CLI::Option* option, const NumberRange& range);

inline constexpr IntegerRange kSequenceLengths{1, int64_t{1} << 30};  ///< in tokens

}  // namespace lighthouse::cli
