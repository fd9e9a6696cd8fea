// Results of the attention benchmark as a table and as JSON lines.
#pragma once

#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "bench/machine.h"
#include "bench/results.h"

namespace lighthouse::bench {

void print_header(const BenchOptions& options, const Machine& machine, std::ostream& out);
void print_case(const CaseResult& result, const Machine& machine, std::ostream& out);
/// The exponent x of time ~ N^x between neighbouring lengths of the paper's shape.
void print_growth(const std::vector<CaseResult>& results, std::ostream& out);
void print_crossover(const std::vector<CaseResult>& results, std::ostream& out);

/// The length from which ours is faster than dense, over the cases of the paper's shape that have `pass`: between two
/// measured lengths, log-log; the first of them where ours always is; none where it never is.
std::optional<double> crossover_length(const std::vector<CaseResult>& results, Timing Passes::*pass);

/// One object a line: where it was measured, the case, what was timed, median, quartiles and number of runs.
std::string json_lines(const BenchOptions& options, const Machine& machine, const std::vector<CaseResult>& results);

}  // namespace lighthouse::bench
