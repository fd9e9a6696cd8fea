#include "bench/attention_report.h"

#include <cmath>
#include <iomanip>
#include <ostream>
#include <sstream>

namespace lighthouse::bench {
namespace {

constexpr int kName = 26;
constexpr int kColumn = 12;

std::string fixed(double value, int digits) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

/// Three or four significant digits.
std::string milliseconds(const Timing& timing) {
  if (timing.repeats == 0) return "-";
  const double ms = timing.median_ms;
  return fixed(ms, ms < 1 ? 3 : ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

std::string ratio(const Timing& numerator, const Timing& denominator) {
  if (numerator.repeats == 0 || denominator.repeats == 0) return "-";
  const double value = numerator.median_ms / denominator.median_ms;
  return fixed(value, value < 10 ? 2 : 1) + "x";
}

/// Of ours, and of dense where that was run.
std::string runs(const Timing& ours, const Timing& dense) {
  std::ostringstream text;
  text << ours.repeats;
  if (dense.repeats > 0) text << '/' << dense.repeats;
  return text.str();
}

std::string mebibytes(const std::optional<MemoryUse>& memory, int64_t MemoryUse::*bytes) {
  return memory ? fixed(static_cast<double>((*memory).*bytes) / (1 << 20), 0) : "-";
}

void print_cells(const std::string& name, const std::vector<std::string>& cells, std::ostream& out) {
  out << "  " << std::left << std::setw(kName) << name << std::right;
  for (const std::string& cell : cells) out << std::setw(kColumn) << cell;
  out << '\n';
}

void print_pass(const char* name, const CaseResult& result, Timing Passes::*pass, std::ostream& out) {
  const Timing& dense = result.dense.*pass;
  const Timing& stock = result.at_gathered_len.*pass;
  const Timing& ours = result.lighthouse.*pass;
  if (ours.repeats == 0) return;
  print_cells(name,
              {milliseconds(dense), milliseconds(stock), milliseconds(ours), ratio(dense, ours), ratio(ours, stock),
               runs(ours, dense)},
              out);
}

void print_memory(const char* name, const CaseResult& result, int64_t MemoryUse::*bytes, std::ostream& out) {
  if (!result.lighthouse.memory) return;
  print_cells(name,
              {mebibytes(result.dense.memory, bytes), mebibytes(result.at_gathered_len.memory, bytes),
               mebibytes(result.lighthouse.memory, bytes)},
              out);
}

void print_stage(const StageResult& stage, const Machine& machine, std::ostream& out) {
  out << "    " << std::left << std::setw(kName - 2) << stage.name << std::right << std::setw(3 * kColumn)
      << milliseconds(stage.timing) << " ms";
  const double per_s = (stage.bytes + stage.flop) / stage.timing.median_ms / 1e6;
  if (stage.bytes > 0) {
    out << ", " << fixed(stage.bytes / 1e6, 1) << " MB, " << fixed(per_s, 1) << " GB/s, "
        << fixed(100 * per_s / machine.copy_gb_per_s, 0) << " % of a copy";
  } else if (stage.flop > 0) {
    out << ", " << fixed(per_s, 0) << " GFLOP/s, " << fixed(100 * per_s / machine.matmul_gflop_per_s, 0)
        << " % of a product";
  }
  out << '\n';
}

std::string exponent(const CaseResult& shorter, const CaseResult& longer, Passes CaseResult::*what) {
  const Timing& a = (shorter.*what).both;
  const Timing& b = (longer.*what).both;
  if (a.repeats == 0 || b.repeats == 0) return "-";
  const double lengths =
      static_cast<double>(longer.attention_case.seq_len) / static_cast<double>(shorter.attention_case.seq_len);
  return "N^" + fixed(std::log(b.median_ms / a.median_ms) / std::log(lengths), 2);
}

void print_machine(const BenchOptions& options, const Machine& machine, std::ostream& out) {
  if (options.device == "cuda")
    out << machine.gpu << ", driver " << machine.driver << ", CUDA " << machine.cuda << ", ";
  out << machine.cpu << ", " << machine.threads << " threads, torch " << machine.torch << ", commit " << machine.commit
      << "\nthis machine copies " << fixed(machine.copy_gb_per_s, 1) << " GB/s and multiplies "
      << fixed(machine.matmul_gflop_per_s, 0) << " GFLOP/s (" << (options.device == "cuda" ? "bf16" : "fp32") << ")\n";
}

}  // namespace

void print_header(const BenchOptions& options, const Machine& machine, std::ostream& out) {
  out << "causal attention, " << options.device << ' ' << options.dtype << ", B=" << options.batch
      << " H=" << options.num_heads << " H_kv=" << options.num_kv_heads << " d=" << options.head_dim << '\n';
  print_machine(options, machine, out);
  if (options.device == "cuda") {
    out << "times are medians in ms by device events, inputs not in the L2 cache; stages alone, in a CUDA graph\n";
  } else {
    out << "times are medians in ms; stages are timed alone, on what caches hold of their arguments\n";
  }
  print_cells("", {"dense", "SDPA at S", "lighthouse", "speed-up", "over S", "runs"}, out);
  out.flush();
}

void print_case(const CaseResult& result, const Machine& machine, std::ostream& out) {
  const auto& [seq_len, selection, score] = result.attention_case;
  out << "N=" << seq_len << " L=" << selection.num_levels << " p=" << selection.pooling_factor
      << " k=" << selection.topk << ' ' << score.scorer << ", S=" << result.gathered_len;
  if (!result.check.empty()) out << ", check " << result.check;
  out << '\n';
  if (!result.error.empty()) {
    out << "  failed: " << result.error << std::endl;
    return;
  }
  print_pass("forward", result, &Passes::forward, out);
  print_pass("forward+backward", result, &Passes::both, out);
  print_pass("forward+backward in graph", result, &Passes::both_in_graph, out);
  print_memory("extra memory, MiB", result, &MemoryUse::extra_bytes, out);
  print_memory("kept for backward, MiB", result, &MemoryUse::kept_bytes, out);
  for (const StageResult& stage : result.stages) print_stage(stage, machine, out);
  out.flush();
}

void print_growth(const std::vector<CaseResult>& results, std::ostream& out) {
  std::vector<const CaseResult*> comparable;
  for (const CaseResult& result : results) {
    if (has_paper_shape(result.attention_case)) comparable.push_back(&result);
  }
  if (comparable.size() < 2) return;
  out << "\ngrowth of forward+backward\n";
  for (size_t i = 1; i < comparable.size(); ++i) {
    const CaseResult& shorter = *comparable[i - 1];
    const CaseResult& longer = *comparable[i];
    print_cells(std::to_string(shorter.attention_case.seq_len) + " to " + std::to_string(longer.attention_case.seq_len),
                {exponent(shorter, longer, &CaseResult::dense), exponent(shorter, longer, &CaseResult::at_gathered_len),
                 exponent(shorter, longer, &CaseResult::lighthouse)},
                out);
  }
}

void print_crossover(const std::vector<CaseResult>& results, std::ostream& out) {
  const std::optional<double> length = crossover_length(results, &Passes::both);
  if (length) out << "\nforward+backward is faster than dense from N = " << fixed(*length, 0) << " on\n";
}

}  // namespace lighthouse::bench
