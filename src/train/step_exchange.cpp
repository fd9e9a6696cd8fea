#include "train/step_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

namespace lighthouse {
namespace {

constexpr int64_t kHead = 3;     // values in front of a row: stop signal, seconds, memory
constexpr double kUnknown = -1;  // memory

/// The values of what comes from all ranks. Throws RankFailure: of a collective that failed nothing is decided.
template <typename T>
std::vector<T> values_of(const at::Tensor& x, const Mesh& mesh) {
  const at::Tensor host = mesh.all().to_host(x).contiguous();
  const T* values = host.const_data_ptr<T>();
  return {values, values + host.numel()};
}

}  // namespace

StepExchange::StepExchange(const Mesh& mesh, const GradientExchange& gradients, int64_t num_batches, at::Device device,
                           bool one_by_one)
    : mesh_(mesh),
      gradients_(gradients),
      device_(device),
      num_batches_(num_batches),
      per_batch_(one_by_one ? 2 : 1),
      most_losses_(mesh.most_of(num_batches) * per_batch_) {
  const int64_t first_norm = kHead + most_losses_;
  std::vector<int64_t> used(static_cast<size_t>(mesh.size()), first_norm);
  for (const int64_t owner : gradients.owners()) ++used[static_cast<size_t>(owner)];
  row_len_ = *std::max_element(used.begin(), used.end());

  std::vector<int64_t> heads, losses, norms;
  for (int64_t rank = 0; rank < mesh.size(); ++rank) {
    for (int64_t value = 0; value < kHead; ++value) heads.push_back(rank * row_len_ + value);
  }
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    for (int64_t sharer = 0; sharer < mesh.context_size(); ++sharer) {
      const int64_t first = mesh.rank_of(batch, sharer) * row_len_ + kHead + mesh.place_of(batch) * per_batch_;
      for (int64_t number = 0; number < per_batch_; ++number) losses.push_back(first + number);
    }
  }
  std::fill(used.begin(), used.end(), first_norm);
  for (const int64_t owner : gradients.owners()) norms.push_back(owner * row_len_ + used[static_cast<size_t>(owner)]++);
  const auto on_device = [&](const std::vector<int64_t>& places) { return at::tensor(places, at::kLong).to(device); };
  head_places_ = on_device(heads);
  loss_places_ = on_device(losses);
  norm_places_ = on_device(norms);
}

StepStart StepExchange::start(int64_t num_targets, bool failed) const {
  StepStart start;
  if (mesh_.size() == 1) return {num_targets, failed ? std::vector<int64_t>{0} : std::vector<int64_t>()};
  const at::Tensor row = at::tensor({num_targets, int64_t{failed}}, at::kLong).to(device_);
  const std::vector<int64_t> all = values_of<int64_t>(mesh_.all().of_ranks(row, "targets of all ranks"), mesh_);
  for (int64_t rank = 0; rank < mesh_.size(); ++rank) {
    start.num_targets += all[static_cast<size_t>(2 * rank)];
    if (all[static_cast<size_t>(2 * rank + 1)] != 0) start.failed.push_back(rank);
  }
  return start;
}

StepTotals StepExchange::end(const std::vector<at::Tensor>& losses, const at::Tensor& norms, int stop_signal,
                             const RankLoad& load) const {
  const at::NoGradGuard no_grad;
  std::vector<double> values(static_cast<size_t>(row_len_), 0);
  values[0] = stop_signal;
  values[1] = load.seconds;
  values[2] = load.peak_memory ? static_cast<double>(*load.peak_memory) : kUnknown;
  const at::Tensor row = at::tensor(values, at::kDouble).to(device_);
  row.slice(0, kHead, kHead + static_cast<int64_t>(losses.size())).copy_(at::stack(losses));
  row.slice(0, kHead + most_losses_, kHead + most_losses_ + norms.numel()).copy_(norms);
  const at::Tensor all = mesh_.all().of_ranks(row, "totals of the step").flatten();
  const at::Tensor all_norms = all.index_select(0, norm_places_);
  const std::vector<double> shown =
      values_of<double>(at::cat({at::linalg_vector_norm(all_norms, 2).view({1}), all.index_select(0, head_places_),
                                 all.index_select(0, loss_places_), all_norms}),
                        mesh_);

  StepTotals totals;
  const double* next = shown.data();
  totals.gradient_norm = *next++;
  for (int64_t rank = 0; rank < mesh_.size(); ++rank, next += kHead) {
    if (totals.stop_signal == 0) totals.stop_signal = static_cast<int>(next[0]);
    totals.loads.push_back({next[1], std::nullopt});
    if (next[2] != kUnknown) totals.loads.back().peak_memory = static_cast<int64_t>(next[2]);
  }
  if (per_batch_ > 1) totals.batches.resize(static_cast<size_t>(num_batches_));
  for (int64_t i = 0; i < num_batches_ * mesh_.context_size(); ++i) {
    totals.loss += *next;
    if (per_batch_ > 1) {
      BatchLoss& batch = totals.batches[static_cast<size_t>(i / mesh_.context_size())];
      batch.loss += next[0];
      batch.weight += next[1];
    }
    next += per_batch_;
  }
  for (const Piece& piece : gradients_.pieces()) {
    const bool finite = std::isfinite(*next++);
    const bool named = !totals.not_finite.empty() && totals.not_finite.back() == piece.parameter;
    if (!finite && !named) totals.not_finite.push_back(piece.parameter);
  }
  return totals;
}

}  // namespace lighthouse
