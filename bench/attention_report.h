// Results of the attention benchmark as a table and as JSON lines.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "bench/attention_bench.h"
#include "bench/machine.h"
#include "bench/timing.h"

namespace lighthouse::bench {

/// Forward alone, and forward with backward.
struct Passes {
  Timing forward, both;
};

/// One stage of ours, with the least memory traffic or the arithmetic that it can do with.
struct StageResult {
  std::string name;
  Timing timing;
  double bytes = 0;
  double flop = 0;
};

struct CaseResult {
  int64_t seq_len, gathered_len, topk;
  Passes dense, at_gathered_len, lighthouse;  ///< dense.both.repeats == 0: left out
  std::vector<StageResult> stages;            ///< in order of execution, backward included
};

void print_header(const BenchOptions& options, const Machine& machine, std::ostream& out);
void print_case(const CaseResult& result, const Machine& machine, std::ostream& out);
/// The exponent x of time ~ N^x between neighbouring lengths.
void print_growth(const std::vector<CaseResult>& results, std::ostream& out);

/// One object a line: where it was measured, the case, what was timed, median, quartiles and number of runs.
std::string json_lines(const BenchOptions& options, const Machine& machine, const std::vector<CaseResult>& results);

}  // namespace lighthouse::bench
