#include "bench/attention_report.h"

#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

namespace lighthouse::bench {
namespace {

constexpr int kColumn = 13;

std::string fixed(double value, int digits) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

/// Three or four significant digits.
std::string milliseconds(const Timing& timing) {
  if (timing.repeats == 0) return "-";
  const double ms = timing.median_ms;
  return fixed(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

std::string ratio(const Timing& numerator, const Timing& denominator) {
  if (numerator.repeats == 0 || denominator.repeats == 0) return "-";
  const double value = numerator.median_ms / denominator.median_ms;
  return fixed(value, value < 10 ? 2 : 1) + "x";
}

void print_passes(const char* name, const CaseResult& result, Timing Passes::*pass, std::ostream& out) {
  out << std::setw(8) << result.seq_len << std::setw(8) << result.gathered_len << "  " << std::left << std::setw(18)
      << name << std::right << std::setw(kColumn) << milliseconds(result.dense.*pass) << std::setw(kColumn)
      << milliseconds(result.at_gathered_len.*pass) << std::setw(kColumn) << milliseconds(result.lighthouse.*pass)
      << std::setw(kColumn) << ratio(result.dense.*pass, result.lighthouse.*pass) << std::setw(kColumn)
      << ratio(result.lighthouse.*pass, result.at_gathered_len.*pass) << '\n';
}

std::string exponent(const CaseResult& shorter, const CaseResult& longer, Passes CaseResult::*what) {
  const Timing& a = (shorter.*what).both;
  const Timing& b = (longer.*what).both;
  if (a.repeats == 0 || b.repeats == 0) return "-";
  const double lengths = static_cast<double>(longer.seq_len) / static_cast<double>(shorter.seq_len);
  return "N^" + fixed(std::log(b.median_ms / a.median_ms) / std::log(lengths), 2);
}

using Json = nlohmann::ordered_json;

Json common_json(const BenchOptions& options, const Machine& machine) {
  return {{"bench", "attention"},
          {"commit", machine.commit},
          {"cpu", machine.cpu},
          {"threads", machine.threads},
          {"torch", machine.torch},
          {"copy_gb_per_s", machine.copy_gb_per_s},
          {"matmul_gflop_per_s", machine.matmul_gflop_per_s},
          {"device", options.device},
          {"dtype", options.dtype},
          {"scorer", options.score.scorer},
          {"batch", options.batch},
          {"num_heads", options.num_heads},
          {"num_kv_heads", options.num_kv_heads},
          {"head_dim", options.head_dim},
          {"num_levels", options.selection.num_levels},
          {"pooling_factor", options.selection.pooling_factor},
          {"tile_topk", options.selection.tile_topk}};
}

std::string json_line(Json line, const CaseResult& result, const std::string& what, const Timing& timing) {
  line["topk"] = result.topk;
  line["seq_len"] = result.seq_len;
  line["gathered_len"] = result.gathered_len;
  line["what"] = what;
  line["median_ms"] = timing.median_ms;
  line["q1_ms"] = timing.q1_ms;
  line["q3_ms"] = timing.q3_ms;
  line["repeats"] = timing.repeats;
  return line.dump() + '\n';
}

}  // namespace

void print_header(const BenchOptions& options, const Machine& machine, std::ostream& out) {
  const SelectionConfig& selection = options.selection;
  out << "causal attention, " << options.device << ' ' << options.dtype << ", B=" << options.batch
      << " H=" << options.num_heads << " H_kv=" << options.num_kv_heads << " d=" << options.head_dim
      << " L=" << selection.num_levels << " p=" << selection.pooling_factor
      << " k=" << (selection.topk == 0 ? "N/64" : std::to_string(selection.topk)) << ", scorer " << options.score.scorer
      << '\n'
      << machine.cpu << ", " << machine.threads << " threads, torch " << machine.torch << ", commit " << machine.commit
      << "\nthis machine copies " << fixed(machine.copy_gb_per_s, 1) << " GB/s and multiplies "
      << fixed(machine.matmul_gflop_per_s, 0) << " GFLOP/s (fp32); times are medians in ms;\n"
      << "stages are timed alone, on what caches hold of their arguments\n\n";
  out << std::setw(8) << "N" << std::setw(8) << "S"
      << "  " << std::left << std::setw(18) << "pass" << std::right;
  for (const char* title : {"dense", "SDPA at S", "lighthouse", "speed-up", "over S"}) {
    out << std::setw(kColumn) << title;
  }
  out << std::endl;
}

void print_case(const CaseResult& result, const Machine& machine, std::ostream& out) {
  print_passes("forward", result, &Passes::forward, out);
  print_passes("forward+backward", result, &Passes::both, out);
  for (const StageResult& stage : result.stages) {
    out << std::setw(18) << "" << std::left << std::setw(18) << stage.name << std::right << std::setw(kColumn)
        << milliseconds(stage.timing) << " ms";
    const double per_s = (stage.bytes + stage.flop) / stage.timing.median_ms / 1e6;
    if (stage.bytes > 0) {
      out << ", " << fixed(per_s, 1) << " GB/s, " << fixed(100 * per_s / machine.copy_gb_per_s, 0) << " % of a copy";
    } else if (stage.flop > 0) {
      out << ", " << fixed(per_s, 0) << " GFLOP/s, " << fixed(100 * per_s / machine.matmul_gflop_per_s, 0)
          << " % of a product";
    }
    out << '\n';
  }
  out.flush();
}

void print_growth(const std::vector<CaseResult>& results, std::ostream& out) {
  if (results.size() < 2) return;
  out << "\ngrowth of forward+backward\n";
  for (size_t i = 1; i < results.size(); ++i) {
    const CaseResult& shorter = results[i - 1];
    const CaseResult& longer = results[i];
    const std::string lengths = std::to_string(shorter.seq_len) + " to " + std::to_string(longer.seq_len);
    out << std::left << std::setw(36) << "  " + lengths << std::right << std::setw(kColumn)
        << exponent(shorter, longer, &CaseResult::dense) << std::setw(kColumn)
        << exponent(shorter, longer, &CaseResult::at_gathered_len) << std::setw(kColumn)
        << exponent(shorter, longer, &CaseResult::lighthouse) << '\n';
  }
}

std::string json_lines(const BenchOptions& options, const Machine& machine, const std::vector<CaseResult>& results) {
  const Json common = common_json(options, machine);
  std::string lines;
  for (const CaseResult& result : results) {
    const auto add = [&](const std::string& what, const Passes& passes) {
      if (passes.both.repeats == 0) return;
      lines += json_line(common, result, what + " forward", passes.forward);
      lines += json_line(common, result, what + " forward+backward", passes.both);
    };
    add("dense", result.dense);
    add("sdpa_at_s", result.at_gathered_len);
    add("lighthouse", result.lighthouse);
    for (const StageResult& stage : result.stages) {
      Json line = common;
      if (stage.bytes > 0) line["bytes"] = stage.bytes;
      if (stage.flop > 0) line["flop"] = stage.flop;
      lines += json_line(line, result, "stage " + stage.name, stage.timing);
    }
  }
  return lines;
}

}  // namespace lighthouse::bench
