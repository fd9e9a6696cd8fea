#include "model/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace lighthouse {

int64_t likeliest_token(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

int64_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });

  const double largest = logits[order.front()];
  std::vector<double> up_to(logits.size());  // probability of the tokens so far, times a constant
  double total = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    total += std::exp((logits[order[rank]] - largest) / temperature);
    up_to[rank] = total;
  }
  const auto nucleus_end = std::lower_bound(up_to.begin(), up_to.end() - 1, top_p * total);
  const auto landed = std::upper_bound(up_to.begin(), nucleus_end, uniform * *nucleus_end);
  return order[landed - up_to.begin()];
}

}  // namespace lighthouse
