#include "audit/moves.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>

#include <limits>
#include <stdexcept>

namespace lighthouse {
namespace {

at::Tensor bits(const at::Tensor& x) { return x.view(x.scalar_type() == at::kDouble ? at::kLong : at::kInt); }

/// On the CPU in double; what is not a number counts as infinite.
at::Tensor magnitude(const at::Tensor& change) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return change.abs().to(at::kCPU, at::kDouble).nan_to_num_(kInfinity, kInfinity);
}

void require_finite(const Outputs& outputs, int64_t sequence) {
  const at::Tensor finite = at::isfinite(outputs.hidden).all(-1);
  if (finite.all().item<bool>()) return;
  const int64_t token = finite.logical_not().nonzero()[0].item<int64_t>();
  throw std::runtime_error("audit: the model's outputs are not finite, first at token " + std::to_string(token) +
                           " of sequence " + std::to_string(sequence) + "; take an earlier checkpoint");
}

struct Spread {
  double max = 0, median = 0;
};
Spread spread(const std::vector<at::Tensor>& parts) {
  const at::Tensor all = at::cat(parts).to(at::kDouble);
  return {all.max().item<double>(), all.median().item<double>()};
}

}  // namespace

std::string to_string(const Place& place) {
  return "sequence " + std::to_string(place.sequence) + ", change of token " + std::to_string(place.changed) +
         ", output of token " + std::to_string(place.output);
}

void MoveCounter::add(const Outputs& before, const Outputs& after, const at::Tensor& unseen, int64_t sequence,
                      int64_t changed) {
  require_finite(before, sequence);
  ++counts_.num_changes;
  counts_.num_outputs += unseen.sum().item<int64_t>();
  const at::Tensor differs = bits(before.hidden).ne(bits(after.hidden)).any(-1);
  const at::Tensor moved = differs.logical_and(unseen.to(differs.device())).nonzero().flatten();  // [moved] tokens
  if (moved.numel() == 0) return;
  const auto of_moved = [&](const at::Tensor& x) { return x.index_select(0, moved); };
  deltas_.push_back(magnitude(of_moved(after.hidden) - of_moved(before.hidden)).amax(-1));
  losses_.push_back(magnitude(of_moved(after.losses) - of_moved(before.losses)));
  distances_.push_back((moved - changed).abs().to(at::kCPU));
  const int64_t largest = deltas_.back().argmax().item<int64_t>();
  const double delta = deltas_.back()[largest].item<double>();
  if (counts_.num_moved == 0 || delta > counts_.max_delta) {
    counts_.max_delta = delta;
    counts_.worst = {sequence, changed, moved[largest].item<int64_t>()};
  }
  counts_.num_moved += moved.numel();
}

Moves MoveCounter::total() const {
  Moves moves = counts_;
  if (moves.num_moved == 0) return moves;
  moves.median_delta = spread(deltas_).median;
  const auto [max_loss, median_loss] = spread(losses_);
  moves.max_loss = max_loss;
  moves.median_loss = median_loss;
  const auto [max_distance, median_distance] = spread(distances_);
  moves.max_distance = static_cast<int64_t>(max_distance);
  moves.median_distance = static_cast<int64_t>(median_distance);
  return moves;
}

}  // namespace lighthouse
