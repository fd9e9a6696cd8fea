#include "cli/eval_report.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <string>
#include <vector>

#include "io/printable.h"
#include "train/text.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string number(const Json& value, int digits) { return value.is_null() ? "-" : fixed(value.get<double>(), digits); }
std::string percent(const Json& share) { return fixed(100 * share.get<double>(), 0) + " %"; }

/// Rows of cells, as wide as their widest, to the right.
void print_columns(const std::vector<std::vector<std::string>>& rows, std::ostream& out) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  }
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      out << "  " << std::setw(static_cast<int>(widths[column])) << row[column];
    }
    out << '\n';
  }
}

void print_header(const Json& report, std::ostream& out) {
  if (report.contains("run")) {
    out << "run " << printable_name(report["run"].get<std::string>()) << " after step " << report["step"] << " (stage "
        << report["stage"] << ')';
  } else {
    out << "model " << printable_name(report["model"].get<std::string>());
  }
  if (report.contains("corpus")) {
    out << ", " << report["corpus"]["sequences"] << " of " << report["corpus"]["available"] << " sequences of "
        << report["seq_len"] << " tokens";
  }
  out << '\n';
}

void print_loss(const Json& task, std::ostream& out) {
  for (const auto& [mode, loss] : task.items()) {
    out << std::left << std::setw(12) << mode << std::right;
    if (loss["loss"].is_null()) {
      out << "not finite\n";
      continue;
    }
    const auto nats = loss["loss"].get<double>();
    out << fixed(nats, 4) << " nats";
    if (!loss["standard_error"].is_null()) out << " (± " << number(loss["standard_error"], 4) << ')';
    const bool of_bytes = !loss["bits_per_byte"].is_null();
    out << ", " << fixed(of_bytes ? loss["bits_per_byte"].get<double>() : nats / std::log(2.0), 4) << " bits a "
        << (of_bytes ? "byte" : "token") << "; perplexity " << fixed(std::exp(nats), 3) << '\n';
  }
}

void print_position(const Json& task, std::ostream& out) {
  std::vector<std::vector<std::string>> rows = {{"position"}};
  for (const auto& [mode, buckets] : task.items()) {
    rows.front().insert(rows.front().end(), {mode, "std. error"});
    rows.resize(buckets.size() + 1);
    for (size_t index = 0; index < buckets.size(); ++index) {
      const Json& bucket = buckets[index];
      std::vector<std::string>& row = rows[index + 1];
      if (row.empty()) row = {"from " + bucket["begin"].dump()};
      row.insert(row.end(), {number(bucket["loss"], 4), number(bucket["standard_error"], 4)});
    }
  }
  out << "\nloss in nats by position\n";
  print_columns(rows, out);
}

void print_context(const Json& task, std::ostream& out) {
  out << "\nlast " << task["length"] << " to " << task["longest"]
      << " tokens of context: " << number(task["limited"], 4) << " nats; all of it: " << number(task["full"], 4)
      << "; far context is worth " << number(task["difference"], 4) << " (± " << number(task["standard_error"], 4)
      << ")\n";
}

void print_retrieval(const std::string& name, const Json& task, std::ostream& out) {
  std::vector<std::vector<std::string>> rows = {{"length"}};
  for (const Json& length : task["lengths"]) {
    std::vector<std::string> row = {length["length"].dump()};
    for (const Json& cell : task["cells"]) {
      if (cell["length"] != length["length"]) continue;
      if (rows.size() == 1) rows.front().push_back(percent(cell["depth"]));
      row.push_back(percent(cell["accuracy"]));
    }
    row.insert(row.end(),
               {percent(length["accuracy"]), percent(length["interval"][0]) + " to " + percent(length["interval"][1]),
                number(length["log_probability"], 3)});
    rows.push_back(row);
  }
  rows.front().insert(rows.front().end(), {"all", "95 %", "log p"});
  out << '\n' << name << ": right digits by depth; chance " << percent(task["chance"]) << '\n';
  print_columns(rows, out);
}

void print_copy(const Json& task, std::ostream& out) {
  std::vector<std::vector<std::string>> rows = {{"distance", "bits a byte", "std. error"}};
  for (const Json& cell : task["cells"]) {
    rows.push_back({cell["distance"].dump(), number(cell["bits_per_byte"], 3), number(cell["standard_error"], 3)});
  }
  out << "\ncopy: bits a byte of a repeated string; chance " << number(task["chance_bits"], 0) << '\n';
  print_columns(rows, out);
}

}  // namespace

void print_evaluation(const Json& report, std::ostream& out) {
  print_header(report, out);
  for (const auto& [name, task] : report["tasks"].items()) {
    if (name == "loss") print_loss(task, out);
    if (name == "position") print_position(task, out);
    if (name == "context") print_context(task, out);
    if (name == "passkey" || name == "multikey") print_retrieval(name, task, out);
    if (name == "copy") print_copy(task, out);
  }
}

}  // namespace lighthouse::cli
