#include "audit/lookahead.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "audit/change.h"

namespace lighthouse {
namespace {

struct Distances {
  int64_t nearest, farthest;
};
constexpr std::array<Distances, 4> kBands = {{{1, 1}, {2, 16}, {17, 256}, {257, kNoFarthest}}};

}  // namespace

LookaheadMeter::LookaheadMeter() : by_distance_(kBands.size()) {}

void LookaheadMeter::add(const Sequence& sequence, int64_t index, int64_t cut, const at::Tensor& own,
                         const at::Tensor& other) {
  const at::Tensor before = own.to(at::kCPU, at::kDouble);
  const at::Tensor difference = before - other.to(at::kCPU, at::kDouble);
  add_to(own_, sequence, index, before, 0, before.size(0));
  const int64_t first = document_of(sequence, cut).begin;
  add_to(difference_, sequence, index, difference, first, cut);
  for (size_t band = 0; band < kBands.size(); ++band) {
    const auto [nearest, farthest] = kBands[band];
    add_to(by_distance_[band], sequence, index, difference, cut - std::min(farthest, cut - first), cut - nearest + 1);
  }
}

Lookahead LookaheadMeter::result() const {
  Lookahead result{mean_of(own_).mean, mean_of(difference_), {}};
  for (size_t band = 0; band < kBands.size(); ++band) {
    result.by_distance.push_back({kBands[band].nearest, kBands[band].farthest, mean_of(by_distance_[band])});
  }
  return result;
}

void LookaheadMeter::add_to(Sums& sums, const Sequence& sequence, int64_t index, const at::Tensor& values,
                            int64_t begin, int64_t end) {
  if (begin >= end) return;
  sums.resize(std::max(sums.size(), static_cast<size_t>(index) + 1));
  auto& [sum, count] = sums[static_cast<size_t>(index)];
  sum += values.slice(0, begin, end).sum().item<double>();
  const auto targets = sequence.targets.begin();
  count += end - begin - std::count(targets + begin, targets + end, kIgnoredTarget);
}

SequenceMean LookaheadMeter::mean_of(const Sums& sums) {
  SequenceMean result;
  std::vector<double> means;
  for (const auto& [sum, count] : sums) {
    if (count > 0) means.push_back(sum / static_cast<double>(count));
    result.num_targets += count;
  }
  const auto size = static_cast<double>(means.size());
  double squares = 0;
  for (const double value : means) result.mean += value / size;
  for (const double value : means) squares += (value - result.mean) * (value - result.mean);
  result.standard_error = means.size() < 2 ? std::nan("") : std::sqrt(squares / (size - 1) / size);
  return result;
}

}  // namespace lighthouse
