// data.mixture: in which order a run reads several corpora.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lighthouse {

struct MixturePart {
  std::string path;
  double weight = 1;  ///< its share of what is trained on, over the sum of all
};

/// Of texts "PATH=WEIGHT". Throws InvalidArgument naming the text: no weight, one that is not above 0, a corpus twice,
/// also under two spellings of its path.
std::vector<MixturePart> parse_mixture(const std::vector<std::string>& texts);

/// An endless order of sources, in which each lies as evenly as can be: a period of kPeriod entries over and over, of
/// which each source has its share to within an entry. A pure function of the weights.
class MixtureSchedule {
 public:
  static constexpr int64_t kPeriod = 4096;

  static constexpr int64_t kLeastShare = 1000;  ///< of a source: one of so many

  /// Throws InvalidArgument for a weight that is too small a share of all.
  explicit MixtureSchedule(const std::vector<double>& weights);

  struct Place {
    size_t source;
    int64_t ordinal;  ///< entries of this source before
  };
  Place place(int64_t entry) const;
  /// Entries of a source among the first `entries`.
  int64_t count(size_t source, int64_t entries) const;

 private:
  std::vector<Place> period_;
  std::vector<int64_t> shares_;  ///< [sources] entries of a period
};

}  // namespace lighthouse
