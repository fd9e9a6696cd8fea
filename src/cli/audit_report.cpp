#include "cli/audit_report.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "train/text.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json to_json(const Moves& moves) {
  Json json = {{"changes", moves.num_changes},
               {"outputs", moves.num_outputs},
               {"moved", moves.num_moved},
               {"max_delta", finite(moves.max_delta)},
               {"median_delta", finite(moves.median_delta)},
               {"max_loss_delta", finite(moves.max_loss)},
               {"median_loss_delta", finite(moves.median_loss)},
               {"max_distance", moves.max_distance},
               {"median_distance", moves.median_distance}};
  if (moves.num_moved > 0) {
    const auto [sequence, token, output] = moves.worst;
    json["worst"] = {{"sequence", sequence}, {"changed_token", token}, {"output_token", output}};
  }
  return json;
}

Json to_json(const SequenceMean& mean) {
  return {{"mean", finite(mean.mean)}, {"standard_error", finite(mean.standard_error)}, {"targets", mean.num_targets}};
}

Json to_json(const Lookahead& lookahead) {
  Json bands = Json::array();
  for (const DistanceBand& band : lookahead.by_distance) {
    Json json = {{"nearest", band.nearest}};
    json["farthest"] = band.farthest == kNoFarthest ? Json() : Json(band.farthest);
    json.update(to_json(band.difference));
    bands.push_back(json);
  }
  return {{"loss", finite(lookahead.loss)},
          {"own_minus_other_continuation", to_json(lookahead.difference)},
          {"by_distance_to_cut", bands}};
}

/// Three digits, in powers of ten where a value is small: "0", "0.0123", "4.56e-06".
std::string number(double value) {
  std::ostringstream text;
  text << std::setprecision(3) << value;
  return text.str();
}

std::string percent(int64_t part, int64_t of) {
  return number(of == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(of)) + " %";
}

/// The first column to the left, the others to the right, each as wide as its longest cell.
void print_table(const std::vector<std::vector<std::string>>& rows, std::ostream& out) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  }
  for (const auto& row : rows) {
    out << "  " << row.front() << std::string(widths.front() - row.front().size(), ' ');
    for (size_t column = 1; column < row.size(); ++column) {
      out << std::string(widths[column] - row[column].size() + 2, ' ') << row[column];
    }
    out << '\n';
  }
}

void print_held(const HeldAudit& held, std::ostream& out) {
  std::vector<std::vector<std::string>> rows{{"", "outputs", "moved", "largest change"}};
  const auto add = [&](const char* name, const Moves& moves) {
    rows.push_back({name, std::to_string(moves.num_outputs), std::to_string(moves.num_moved), number(moves.max_delta)});
  };
  add("one later token changed", held.one_token);
  add("all later tokens changed", held.all_later);
  add("nothing changed, against the plain pass", held.replayed);
  add("all later tokens changed, dense attention", held.dense);
  out << "selection held\n";
  print_table(rows, out);
}

void print_free(const std::vector<FreeAudit>& free, std::ostream& out) {
  std::vector<std::vector<std::string>> rows{{"tile_topk", "tiles", "tokens a tile", "moved", "largest change",
                                              "median", "nats", "median", "farthest back", "median"}};
  for (const FreeAudit& tile : free) {
    const Moves& moves = tile.one_token;
    rows.push_back({std::to_string(tile.tile_topk), std::to_string(tile.num_tiles), std::to_string(tile.tile_tokens),
                    percent(moves.num_moved, moves.num_outputs), number(moves.max_delta), number(moves.median_delta),
                    number(moves.max_loss), number(moves.median_loss), std::to_string(moves.max_distance),
                    std::to_string(moves.median_distance)});
  }
  out << "\nselection free, one later token changed\n";
  print_table(rows, out);
}

std::string band_name(const DistanceBand& band) {
  if (band.farthest == kNoFarthest) return std::to_string(band.nearest) + " or more";
  if (band.nearest == band.farthest) return std::to_string(band.nearest);
  return std::to_string(band.nearest) + " to " + std::to_string(band.farthest);
}

void print_lookahead(const std::vector<FreeAudit>& free, std::ostream& out) {
  if (free.empty() || !free.front().lookahead) return;
  std::vector<std::vector<std::string>> rows{
      {"tile_topk", "loss", "moved", "tokens before the cut", "targets", "own - other, nats", "standard error"}};
  for (const FreeAudit& tile : free) {
    const auto add = [&](const std::string& place, const SequenceMean& mean, bool first) {
      rows.push_back({first ? std::to_string(tile.tile_topk) : "", first ? fixed(tile.lookahead->loss, 4) : "",
                      first ? percent(tile.all_later->num_moved, tile.all_later->num_outputs) : "", place,
                      std::to_string(mean.num_targets), mean.num_targets > 0 ? signed_fixed(mean.mean, 6) : "-",
                      mean.num_targets > 0 ? fixed(mean.standard_error, 6) : "-"});
    };
    add("all", tile.lookahead->difference, true);
    for (const DistanceBand& band : tile.lookahead->by_distance) add(band_name(band), band.difference, false);
  }
  out << "\nselection free, all later tokens changed: loss with the own continuation minus loss with another's\n";
  print_table(rows, out);
}

}  // namespace

nlohmann::ordered_json audit_json(const Audit& audit) {
  Json json;
  json["selection_held"] = {{"one_later_token", to_json(audit.held.one_token)},
                            {"all_later_tokens", to_json(audit.held.all_later)},
                            {"replayed", to_json(audit.held.replayed)},
                            {"dense", to_json(audit.held.dense)}};
  json["selection_free"] = Json::array();
  for (const FreeAudit& tile : audit.free) {
    Json entry = {{"tile_topk", tile.tile_topk},
                  {"tiles", tile.num_tiles},
                  {"tile_tokens", tile.tile_tokens},
                  {"one_later_token", to_json(tile.one_token)}};
    if (tile.all_later) entry["all_later_tokens"] = to_json(*tile.all_later);
    if (tile.lookahead) entry["loss"] = to_json(*tile.lookahead);
    json["selection_free"].push_back(entry);
  }
  return json;
}

void print_audit(const Audit& audit, std::ostream& out) {
  print_held(audit.held, out);
  print_free(audit.free, out);
  print_lookahead(audit.free, out);
}

}  // namespace lighthouse::cli
