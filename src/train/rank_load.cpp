#include "train/rank_load.h"

#include <algorithm>

#include "lighthouse/check.h"
#include "train/text.h"

namespace lighthouse {
namespace {

template <typename Less>
RankLoads::Of largest(const std::vector<RankLoad>& loads, const Less& less) {
  const auto found = std::max_element(loads.begin(), loads.end(), less);
  return {*found, found - loads.begin()};
}

nlohmann::ordered_json to_json(const RankLoads::Of& load) {
  nlohmann::ordered_json json = {{"rank", load.rank}, {"seconds", load.seconds}};
  if (load.peak_memory) json["peak_memory"] = *load.peak_memory;
  return json;
}

std::string text_of(const RankLoads::Of& load) {
  const std::string time = load.seconds < 1 ? fixed(load.seconds * 1e3, 1) + " ms" : fixed(load.seconds, 2) + " s";
  if (!load.peak_memory) return detail::concat("rank ", load.rank, " ", time);
  return detail::concat("rank ", load.rank, " ", time, " ", with_unit(static_cast<double>(*load.peak_memory)), "B");
}

}  // namespace

std::optional<RankLoads> standing_out(const std::vector<RankLoad>& loads) {
  if (loads.size() < 2 || loads.front().seconds == 0) return std::nullopt;
  RankLoads result;
  result.slowest = largest(loads, [](const RankLoad& a, const RankLoad& b) { return a.seconds < b.seconds; });
  result.fastest = largest(loads, [](const RankLoad& a, const RankLoad& b) { return a.seconds > b.seconds; });
  if (loads.front().peak_memory) {
    result.fullest = largest(loads, [](const RankLoad& a, const RankLoad& b) { return a.peak_memory < b.peak_memory; });
  }
  return result;
}

nlohmann::ordered_json to_json(const RankLoads& loads) {
  nlohmann::ordered_json json = {{"fastest", to_json(loads.fastest)}, {"slowest", to_json(loads.slowest)}};
  if (loads.fullest) json["fullest"] = to_json(*loads.fullest);
  return json;
}

std::string text_of(const RankLoads& loads) {
  return detail::concat("fastest ", text_of(loads.fastest), ", slowest ", text_of(loads.slowest));
}

}  // namespace lighthouse
