#include "bench/attention_bench.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <span>
#include <stdexcept>

#include "bench/accuracy.h"
#include "bench/attention_report.h"
#include "bench/contestant.h"
#include "bench/device.h"
#include "bench/passes.h"
#include "bench/stages.h"
#include "io/durable_file.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

void run_case(const BenchOptions& options, const Device& device, CaseResult& result) {
  const AttentionCase& attention_case = result.attention_case;
  TimingLimits limits;
  limits.seconds = options.seconds;
  Contestant ours = lighthouse_contestant(options, attention_case, device);
  if (options.check) result.check = check_accuracy(ours, attention_case) ? "passed" : "skipped";

  Contestant at_gathered_len = stock_contestant(options, result.gathered_len, device);
  std::vector<Contestant*> contestants{&at_gathered_len, &ours};
  std::unique_ptr<Contestant> dense;
  if (attention_case.seq_len <= options.max_dense_len) {
    dense = std::make_unique<Contestant>(stock_contestant(options, attention_case.seq_len, device));
    contestants.push_back(dense.get());
  }
  const bool in_graph = attention_case.seq_len <= options.max_graph_len;
  const std::vector<Passes> passes = measure_passes(contestants, device, limits, in_graph);
  result.at_gathered_len = passes[0];
  result.lighthouse = passes[1];
  if (dense) result.dense = passes[2];
  limits.seconds = options.seconds / 5;
  result.stages = time_stages({ours.sets().front(), attention_case, device, limits});
}

CaseResult try_case(const BenchOptions& options, const Device& device, const AttentionCase& attention_case) {
  CaseResult result;
  result.attention_case = attention_case;
  result.gathered_len = attention_case.gathered_len();
  try {
    device.release_cache();  // of the case before
    run_case(options, device, result);
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const size_t allocator = what.find("DefaultCPUAllocator");  // behind a place in torch
    result.error = what.substr(allocator == std::string::npos ? 0 : allocator);
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  return result;
}

void write_lines(const std::string& lines, DurableFile& file) {
  file.write(std::as_bytes(std::span(lines)));
  file.commit();
}

void throw_if_any_failed(const std::vector<CaseResult>& results) {
  const auto failed = [](const CaseResult& result) { return !result.error.empty(); };
  const auto first = std::find_if(results.begin(), results.end(), failed);
  if (first == results.end()) return;
  throw std::runtime_error(detail::concat("bench attention: ", std::count_if(first, results.end(), failed), " of ",
                                          results.size(), " cases failed; the first, of length ",
                                          first->attention_case.seq_len, ": ", first->error));
}

}  // namespace

void run_attention_bench(const BenchOptions& options, std::ostream& out, std::ostream* progress) {
  check_options(options);
  const std::vector<AttentionCase> cases = cases_of(options);
  for (const AttentionCase& attention_case : cases) attention_case.gathered_len();  // refuse before anything takes time
  std::unique_ptr<DurableFile> file;
  if (!options.output.empty()) file = std::make_unique<DurableFile>(options.output);
  const std::unique_ptr<Device> device = open_device(options.device);
  const Machine machine = measure_machine(*device);
  print_header(options, machine, out);
  std::vector<CaseResult> results;
  for (const AttentionCase& attention_case : cases) {
    if (progress != nullptr) {
      *progress << "case " << results.size() + 1 << " of " << cases.size() << ": N=" << attention_case.seq_len
                << ", some ten measurements of " << options.seconds << " s, longer where one run takes over a second"
                << std::endl;
    }
    results.push_back(try_case(options, *device, attention_case));
    print_case(results.back(), machine, out);
  }
  print_growth(results, out);
  print_crossover(results, out);
  if (file) write_lines(json_lines(options, machine, results), *file);
  throw_if_any_failed(results);
}

}  // namespace lighthouse::bench
