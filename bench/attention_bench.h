// `lighthouse bench attention`: Lighthouse attention beside dense attention, which it replaces, and beside stock
// attention at the gathered length, which nothing built on it can beat.
#pragma once

#include <iosfwd>

#include "bench/cases.h"

namespace lighthouse::bench {

/// Writes a table to `out` as it goes, what comes next to `progress`, and JSON lines to options.output when all is
/// done. A case that fails, by its check or for lack of memory, is reported and does not stop the others. Throws
/// InvalidArgument for options out of range, std::system_error naming the output file, and at the end
/// std::runtime_error where a case failed.
void run_attention_bench(const BenchOptions& options, std::ostream& out, std::ostream* progress = nullptr);

}  // namespace lighthouse::bench
