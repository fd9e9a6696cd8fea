// What the terminal of a person can show.
#pragma once

#include <cstddef>
#include <functional>

namespace lighthouse::cli {

/// Tells, each time it is called, how long a line may be that is drawn again and again on `descriptor`: less than the
/// terminal is wide, for some wrap a full line, and at most 79. Empty where that is no terminal, or one for plain lines
/// only: TERM is dumb, empty or not there, or NO_COLOR is set.
std::function<size_t()> drawing_columns(int descriptor);

}  // namespace lighthouse::cli
