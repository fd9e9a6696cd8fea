#include <nlohmann/json.hpp>

#include "bench/attention_report.h"

namespace lighthouse::bench {
namespace {

using Json = nlohmann::ordered_json;

Json machine_json(const BenchOptions& options, const Machine& machine) {
  Json json{{"bench", "attention"}, {"commit", machine.commit},   {"command", machine.command},
            {"cpu", machine.cpu},   {"threads", machine.threads}, {"torch", machine.torch}};
  if (options.device == "cuda") {
    json["gpu"] = machine.gpu;
    json["driver"] = machine.driver;
    json["cuda"] = machine.cuda;
  }
  json["copy_gb_per_s"] = machine.copy_gb_per_s;
  json["matmul_gflop_per_s"] = machine.matmul_gflop_per_s;
  json["device"] = options.device;
  json["dtype"] = options.dtype;
  json["batch"] = options.batch;
  json["num_heads"] = options.num_heads;
  json["num_kv_heads"] = options.num_kv_heads;
  json["head_dim"] = options.head_dim;
  return json;
}

class CaseLines {
 public:
  CaseLines(Json common, const Machine& machine, const CaseResult& result)
      : common_(std::move(common)), machine_(machine), result_(result) {
    const AttentionCase& attention_case = result.attention_case;
    common_["scorer"] = word(attention_case.score.scorer);
    common_["dilation"] = attention_case.score.dilation;
    common_["num_levels"] = attention_case.selection.num_levels;
    common_["pooling_factor"] = attention_case.selection.pooling_factor;
    common_["tile_topk"] = attention_case.selection.tile_topk;
    common_["topk"] = attention_case.selection.topk;
    common_["seq_len"] = attention_case.seq_len;
    common_["gathered_len"] = result.gathered_len;
    if (!result.check.empty()) common_["check"] = result.check;
  }

  std::string text() {
    if (!result_.error.empty()) {
      add("failed", Json{{"error", result_.error}});
      return lines_;
    }
    add_passes("dense", result_.dense);
    add_passes("sdpa_at_s", result_.at_gathered_len);
    add_passes("lighthouse", result_.lighthouse);
    for (const StageResult& stage : result_.stages) add_stage(stage);
    return lines_;
  }

 private:
  void add(const std::string& what, const Json& fields) {
    Json line = common_;
    line["what"] = what;
    line.update(fields);
    lines_ += line.dump() + '\n';
  }

  static Json timing_json(const Timing& timing) {
    return {
        {"median_ms", timing.median_ms}, {"q1_ms", timing.q1_ms}, {"q3_ms", timing.q3_ms}, {"repeats", timing.repeats}};
  }

  void add_passes(const std::string& name, const Passes& passes) {
    if (!passes.measured()) return;
    add(name + " forward", timing_json(passes.forward));
    Json both = timing_json(passes.both);
    if (passes.memory) {
      both["extra_bytes"] = passes.memory->extra_bytes;
      both["kept_bytes"] = passes.memory->kept_bytes;
    }
    add(name + " forward+backward", both);
    if (passes.both_in_graph.repeats > 0) add(name + " forward+backward in graph", timing_json(passes.both_in_graph));
  }

  void add_stage(const StageResult& stage) {
    Json line = timing_json(stage.timing);
    const double per_s = stage.timing.median_ms * 1e6;
    if (stage.bytes > 0) {
      line["bytes"] = stage.bytes;
      line["copy_share"] = stage.bytes / per_s / machine_.copy_gb_per_s;
    }
    if (stage.flop > 0) {
      line["flop"] = stage.flop;
      line["matmul_share"] = stage.flop / per_s / machine_.matmul_gflop_per_s;
    }
    add("stage " + stage.name, line);
  }

  Json common_;
  const Machine& machine_;
  const CaseResult& result_;
  std::string lines_;
};

std::string crossover_line(Json line, const std::vector<CaseResult>& results, const std::string& what,
                           Timing Passes::*pass) {
  const std::optional<double> length = crossover_length(results, pass);
  if (!length) return "";
  line["what"] = "crossover " + what;
  line["crossover_len"] = *length;
  return line.dump() + '\n';
}

}  // namespace

std::string json_lines(const BenchOptions& options, const Machine& machine, const std::vector<CaseResult>& results) {
  const Json common = machine_json(options, machine);
  std::string lines;
  for (const CaseResult& result : results) lines += CaseLines(common, machine, result).text();
  lines += crossover_line(common, results, "forward+backward", &Passes::both);
  lines += crossover_line(common, results, "forward+backward in graph", &Passes::both_in_graph);
  return lines;
}

}  // namespace lighthouse::bench
