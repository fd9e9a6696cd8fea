#include "data/mixture.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>

#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// The same for all spellings of one corpus: ./tokens/train, tokens/train.bin, through a link, ...
fs::path place_of(const std::string& path) {
  const bool has_ending = path.ends_with(".bin") || path.ends_with(".idx");
  const std::string prefix = has_ending ? path.substr(0, path.size() - 4) : path;
  std::error_code error;
  const bool is_pair = fs::exists(prefix + ".bin", error);
  const fs::path place = fs::weakly_canonical(is_pair ? prefix + ".bin" : path, error);
  const fs::path named = error ? fs::path(path).lexically_normal() : place;
  return named.has_filename() ? named : named.parent_path();
}

}  // namespace

std::vector<MixturePart> parse_mixture(const std::vector<std::string>& texts) {
  std::vector<MixturePart> parts;
  for (const std::string& text : texts) {
    const size_t equals = text.rfind('=');
    MixturePart part{text.substr(0, equals), 0};
    if (equals != std::string::npos) {
      const char* const end = text.data() + text.size();
      const auto [rest, error] = std::from_chars(text.data() + equals + 1, end, part.weight);
      if (error != std::errc() || rest != end) part.weight = 0;
    }
    LIGHTHOUSE_CHECK(!part.path.empty() && part.weight > 0 && std::isfinite(part.weight), "data.mixture: '", text,
                     "' must be PATH=WEIGHT with a weight above 0, as tokens/code/train=0.3");
    const fs::path place = place_of(part.path);
    const auto twice = std::find_if(parts.begin(), parts.end(),
                                    [&](const MixturePart& other) { return place_of(other.path) == place; });
    LIGHTHOUSE_CHECK(twice == parts.end(), "data.mixture: '", part.path, "' is named twice",
                     twice == parts.end() || twice->path == part.path ? "" : ", also as '" + twice->path + "'",
                     "; give it the sum of both weights");
    parts.push_back(std::move(part));
  }
  return parts;
}

MixtureSchedule::MixtureSchedule(const std::vector<double>& weights) : shares_(weights.size()) {
  constexpr double kUnits = 1 << 20;  // whole ones, for the same order on every machine
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> units;
  for (const double weight : weights) {
    LIGHTHOUSE_CHECK(weight * kLeastShare >= sum, "data.mixture: a weight of ", weight, " among a sum of ", sum,
                     "; each must be at least a ", kLeastShare, "th of it");
    units.push_back(std::llround(weight / sum * kUnits));
  }
  const int64_t total = std::accumulate(units.begin(), units.end(), int64_t{0});
  const int64_t length = weights.size() == 1 ? 1 : kPeriod;
  for (int64_t entry = 0; entry < length; ++entry) {
    // The source that is furthest behind its share; of equal ones the first.
    size_t behind = 0;
    int64_t most = std::numeric_limits<int64_t>::min();
    for (size_t source = 0; source < units.size(); ++source) {
      const int64_t lag = units[source] * (entry + 1) - shares_[source] * total;
      if (lag <= most) continue;
      most = lag;
      behind = source;
    }
    period_.push_back({behind, shares_[behind]++});
  }
}

MixtureSchedule::Place MixtureSchedule::place(int64_t entry) const {
  const auto length = static_cast<int64_t>(period_.size());
  Place place = period_[static_cast<size_t>(entry % length)];
  place.ordinal += entry / length * shares_[place.source];
  return place;
}

int64_t MixtureSchedule::count(size_t source, int64_t entries) const {
  const auto length = static_cast<int64_t>(period_.size());
  const auto begin = period_.begin();
  const auto in_part =
      std::count_if(begin, begin + entries % length, [&](const Place& place) { return place.source == source; });
  return entries / length * shares_[source] + in_part;
}

}  // namespace lighthouse
