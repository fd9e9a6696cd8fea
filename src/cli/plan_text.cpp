// The report of a plan as people read it.
#include <algorithm>
#include <iomanip>
#include <ostream>
#include <utility>
#include <vector>

#include "cli/plan_report.h"
#include "plan/advice.h"
#include "train/text.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;
using Labels = std::vector<std::pair<const char*, const char*>>;  // key of the report, what people read

const Labels kMemory = {{"weights", "weights, fp32"},
                        {"moments", "AdamW moments, fp32"},
                        {"gradients", "gradients, fp32"},
                        {"copies", "copies of weights"},
                        {"kept", "kept for backward"},
                        {"temporaries", "temporaries"},
                        {"workspace", "workspace of attention"},
                        {"overhead", "context and allocator"},
                        {"total", "total"}};
const Labels kTime = {{"products", "matrix products"},           {"attention", "attention"},
                      {"lighthouse", "scores, gather, scatter"}, {"rows", "norms, RoPE, SwiGLU"},
                      {"head", "embedding, head, loss"},         {"recompute", "computed again"},
                      {"offload", "waiting for the host link"},  {"optimizer", "optimizer"},
                      {"launches", "waiting for launches"},      {"exchange", "rows between ranks"},
                      {"gradients", "gradients between ranks"},  {"total", "total"}};

constexpr int kLabelWidth = 28;
constexpr int kColumnWidth = 24;

std::string seconds_text(double seconds) {
  return seconds < 1 ? fixed(seconds * 1e3, 1) + " ms" : fixed(seconds, 2) + " s";
}

/// "1234567" -> "1,234,567"
std::string grouped(int64_t count) {
  const std::string digits = std::to_string(count);
  std::string text;
  for (size_t place = 0; place < digits.size(); ++place) {
    if (place > 0 && (digits.size() - place) % 3 == 0) text += ',';
    text += digits[place];
  }
  return text;
}

/// One line: a label, and a cell for each stage.
template <typename Cell>
void print_line(std::ostream& out, const std::string& label, const Json& stages, const Cell& cell) {
  out << std::left << std::setw(kLabelWidth) << label << std::right;
  for (const Json& stage : stages) out << std::setw(kColumnWidth) << std::string(cell(stage));
  out << '\n';
}

/// Lines for those labels of which some stage has more than nothing.
template <typename Text>
void print_table(std::ostream& out, const Labels& labels, const Json& stages, const char* table, const Text& text) {
  for (const auto& label : labels) {
    const char* key = label.first;
    const bool nothing = std::all_of(stages.begin(), stages.end(),
                                     [&](const Json& stage) { return stage[table][key].template get<double>() == 0; });
    if (!nothing) print_line(out, label.second, stages, [&](const Json& stage) { return text(stage[table][key]); });
  }
}

std::string percent(double share) { return fixed(100 * share, 1) + " %"; }

void print_head(const Json& report, std::ostream& out) {
  const Json& device = report["device"];
  out << "device   " << device["name"].get<std::string>() << ", " << memory_text(device["memory_bytes"].get<int64_t>());
  if (device["profile"].is_string()) {
    out << "; times " << (device["measured"].get<bool>() ? "from rates measured on " : "are rough, by the profile ")
        << device["profile"].get<std::string>();
  }
  if (report.contains("ranks")) {
    const Json& ranks = report["ranks"];
    const auto world_size = ranks["world_size"].get<int64_t>();
    out << "\nranks    " << world_size << ": parallel.data " << ranks["data"] << ", parallel.context "
        << ranks["context"] << ", in nodes of " << std::min(ranks["node_size"].get<int64_t>(), world_size)
        << "; recompute " << ranks["recompute"].get<std::string>()
        << (ranks["offload"].get<bool>() ? ", offload of " + ranks["offload_layers"].dump() + " layers" : "")
        << (ranks["offload_optimizer"].get<bool>() ? ", offload of the optimizer" : "")
        << (ranks["offload_weights"].get<bool>() ? ", offload of the weights" : "");
  }
  out << "\nmodel    " << with_unit(report["parameters"].get<double>()) << " parameters, "
      << grouped(report["tokens_per_step"].get<int64_t>()) << " tokens a step\n\n";
}

/// In one unit for the whole table, so that its lines compare.
std::string cell_text(int64_t bytes, bool in_gib) {
  const int shift = in_gib ? 30 : 20;
  return fixed(static_cast<double>(bytes) / static_cast<double>(int64_t{1} << shift), in_gib ? 2 : 1);
}

void print_memory(const Json& stages, std::ostream& out) {
  const bool in_gib = stages.back()["memory_bytes"]["total"].get<int64_t>() >= int64_t{1} << 30;
  print_line(out, in_gib ? "memory at the peak, GiB" : "memory at the peak, MiB", stages, [](const Json& stage) {
    return "stage " + std::to_string(stage["stage"].get<int>()) + ", " + stage["attention"].get<std::string>();
  });
  print_table(out, kMemory, stages, "memory_bytes",
              [&](const Json& bytes) { return cell_text(bytes.get<int64_t>(), in_gib); });
  if (stages.front()["memory_bytes"]["host"].get<int64_t>() > 0) {
    print_line(out, "host memory", stages,
               [&](const Json& stage) { return cell_text(stage["memory_bytes"]["host"].get<int64_t>(), in_gib); });
  }
  for (const Json& stage : stages) {
    out << "the peak of stage " << stage["stage"] << " is in " << stage["memory_bytes"]["peak"].get<std::string>()
        << '\n';
  }
}

void print_time(const Json& report, std::ostream& out) {
  const Json& stages = report["stages"];
  if (stages.front()["seconds"].is_null()) {
    out << "time: " << report["why_no_time"].get<std::string>() << '\n';
    return;
  }
  out << "time of a step\n";
  print_table(out, kTime, stages, "seconds", [](const Json& seconds) { return seconds_text(seconds.get<double>()); });
  print_line(out, "tokens/s", stages,
             [](const Json& stage) { return grouped(static_cast<int64_t>(stage["tokens_per_s"].get<double>())); });
  print_line(out, "model FLOPs utilisation", stages, [](const Json& stage) { return percent(stage["mfu"]); });
  if (stages.front().contains("efficiency")) {
    print_line(out, "of as many single GPUs", stages, [](const Json& stage) { return percent(stage["efficiency"]); });
  }
  print_line(out, "steps", stages, [](const Json& stage) { return grouped(stage["steps"].get<int64_t>()); });
  print_line(out, "their time, h:mm:ss", stages, [](const Json& stage) {
    return duration(stage["seconds"]["total"].get<double>() * stage["steps"].get<double>());
  });
  const Json& validation = report["validation"];
  const auto seconds = validation["seconds"].get<double>();
  const auto count = validation["count"].get<int64_t>();
  out << "a validation reads " << grouped(validation["sequences"].get<int64_t>()) << " sequences in "
      << seconds_text(seconds) << "; the run has " << grouped(count) << ", "
      << duration(seconds * static_cast<double>(count)) << " in all\n";
}

std::string rates_text(const Json& rates) {
  std::string text;
  for (const Json& rate : rates) {
    text += (text.empty() ? "" : ", ") + fixed(rate["bytes_per_s"].get<double>() / 1e9, 0) + " GB/s at " +
            fixed(rate["bytes"].get<double>() / 1e6, 0) + " MB";
  }
  return text;
}

void print_traffic(const Json& report, std::ostream& out) {
  if (!report.contains("ranks")) return;
  out << "\nsent by a rank in a step, MB (collectives)\n";
  for (const auto& item : report["stages"].front()["traffic"].items()) {
    print_line(out, item.key(), report["stages"], [&](const Json& stage) {
      const Json traffic = stage["traffic"].value(item.key(), Json{{"bytes", 0}, {"collectives", 0}});
      return fixed(traffic["bytes"].get<double>() / 1e6, 1) + " (" + grouped(traffic["collectives"].get<int64_t>()) +
             ")";
    });
  }
  const Json& ranks = report["ranks"];
  out << "links in a node, measured between two H100s: all-to-all " << rates_text(ranks["measured"]["all_to_all"])
      << "; all-gather " << rates_text(ranks["measured"]["all_gather"])
      << "\nbetween nodes, assumed: " << fixed(ranks["assumed"]["node_bytes_per_s"].get<double>() / 1e9, 0)
      << " GB/s a GPU each way\n";
  if (ranks["shares"].empty()) return;
  out << "ways to share, the fastest that fits first:\n";
  for (const Json& share : ranks["shares"]) {
    out << "  " << share["options"].get<std::string>() << "   " << memory_text(share["memory_bytes"].get<int64_t>())
        << ", " << seconds_text(share["step_seconds"].get<double>()) << " a step\n";
  }
}

void print_fit(const Json& report, std::ostream& out) {
  const Json& list = report["alternatives"];
  if (report["fits"].get<bool>()) {
    out << "it fits" << (report["is_close"].get<bool>() ? ", barely: predictions are good to 10 %" : "") << '\n';
  } else if (list.empty()) {
    out << "it does not fit, nor with recomputation, smaller micro-batches, bf16 or fewer kept inputs\n";
  } else {
    out << "it does not fit; these do, cheapest first:\n";
  }
  for (const Json& alternative : list) {
    out << "  " << alternative["options"].get<std::string>() << "   "
        << memory_text(alternative["memory_bytes"].get<int64_t>());
    if (!alternative["step_seconds"].is_null()) {
      out << ", " << seconds_text(alternative["step_seconds"].get<double>()) << " a step, mean of the run";
    }
    out << '\n';
  }
  const auto longest = report["largest_seq_len"].get<int64_t>();
  if (longest > 0) out << "longest training.seq_len that fits with all else as it is: " << longest << '\n';
}

}  // namespace

void print_plan(const Json& report, std::ostream& out) {
  print_head(report, out);
  print_memory(report["stages"], out);
  out << '\n';
  print_time(report, out);
  print_traffic(report, out);
  out << '\n';
  print_fit(report, out);
}

}  // namespace lighthouse::cli
