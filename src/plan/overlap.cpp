#include "plan/overlap.h"

#include <algorithm>
#include <ranges>

#include "parallel/mesh_shape.h"
#include "parallel/pieces.h"
#include "plan/shape.h"

namespace lighthouse {
namespace {

// Assumed: of the time that an exchange is hidden, what the backward pass is slower by. NCCL takes up to 24 or 32 of
// 132 multiprocessors, and packing and summing goes over the gradients a few times.
constexpr double kHiddenCost = 0.2;

/// When the gradient of each parameter is complete, from the beginning of the backward pass: that of the embedding,
/// also where it is the output head too, behind the first layer.
std::vector<double> completion_times(const ModelConfig& model, const std::vector<double>& backward) {
  const int64_t behind = model.tie_embeddings ? 1 : 2;  // parameters after those of layers
  const auto num_parameters = static_cast<int64_t>(parameter_sizes(model).size());
  const auto num_layers = static_cast<int64_t>(backward.size());
  const int64_t per_layer = (num_parameters - 1 - behind) / num_layers;
  std::vector<double> times(static_cast<size_t>(num_parameters), 0);
  double time = 0;
  for (int64_t parameter = num_parameters - behind - 1; parameter > 0; --parameter) {
    const int64_t layer = (parameter - 1) / per_layer;
    if (parameter % per_layer == 0) time += backward[static_cast<size_t>(layer)];  // the last one of its layer
    times[static_cast<size_t>(parameter)] = time;
  }
  times.front() = time;
  return times;
}

}  // namespace

double exposed_seconds(const RunConfig& config, double seconds, const std::vector<double>& backward) {
  const int64_t num_ranks = mesh_of(config.parallel).size();
  if (num_ranks == 1) return 0;
  const std::vector<Piece> pieces = pieces_of(parameter_sizes(config.model));
  const auto buckets =
      stretches_of(pieces, owners_of(pieces, num_ranks), num_ranks, stretch_elements(kBucketElements, num_ranks));
  const std::vector<double> times = completion_times(config.model, backward);
  const double each = seconds / static_cast<double>(buckets.size());
  double exchanged = 0;  // when all buckets so far have been
  for (const auto& bucket : std::views::reverse(buckets)) {
    double complete = 0;
    for (const std::vector<Piece>& of_rank : bucket) {
      if (!of_rank.empty()) complete = std::max(complete, times[static_cast<size_t>(of_rank.front().parameter)]);
    }
    exchanged = std::max(exchanged, complete) + each;
  }
  const double exposed = std::min(std::max(exchanged - times.front(), 0.0), seconds);
  return exposed + kHiddenCost * (seconds - exposed);
}

}  // namespace lighthouse
