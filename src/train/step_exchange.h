// What the ranks tell one another of a step, so that all decide alike.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "parallel/gradient_exchange.h"
#include "parallel/mesh.h"
#include "train/rank_load.h"

namespace lighthouse {

/// Before the work of a step.
struct StepStart {
  int64_t num_targets = 0;      ///< that count in the loss, of all ranks
  std::vector<int64_t> failed;  ///< ranks that have no data for it
};

/// What a micro-batch adds to the loss of the step, and its share of the step's targets.
struct BatchLoss {
  double loss = 0;
  double weight = 0;
};

/// After it.
struct StepTotals {
  double loss = 0;                  ///< the sum of all
  std::vector<BatchLoss> batches;   ///< in order; where they are exchanged one by one
  double gradient_norm = 0;         ///< over the pieces of all ranks, in order: the bits of one process
  std::vector<int64_t> not_finite;  ///< parameters whose gradient holds a NaN or an infinity, in order
  int stop_signal = 0;              ///< that a rank has received; 0: none
  std::vector<RankLoad> loads;      ///< of each rank
};

class StepExchange {
 public:
  /// For steps of `num_batches` micro-batches, of which a rank of `mesh` has every data_size()-th, and the gradients
  /// that `gradients` reduces over all of its ranks. Both must stay. `one_by_one`: the losses of batches come with
  /// their weights.
  StepExchange(const Mesh& mesh, const GradientExchange& gradients, int64_t num_batches, at::Device device,
               bool one_by_one = false);

  /// Every rank calls these two once a step. `num_targets`: of this rank's micro-batches.
  StepStart start(int64_t num_targets, bool failed) const;
  /// `losses`: fp64 [], what this rank's micro-batches add to the loss, in order, each one by one before its weight;
  /// `norms`: fp64 [own pieces]. On the device. `stop_signal`, `load`: of this rank. The one copy from the device to
  /// the host of a step.
  StepTotals end(const std::vector<at::Tensor>& losses, const at::Tensor& norms, int stop_signal,
                 const RankLoad& load) const;

 private:
  const Mesh& mesh_;
  const GradientExchange& gradients_;
  at::Device device_;
  int64_t num_batches_, per_batch_;  ///< numbers of a batch: its loss, and one by one its weight
  int64_t most_losses_, row_len_;    ///< of what a rank shows: stop signal, load, losses, norms, each padded
  at::Tensor head_places_, loss_places_,
      norm_places_;  ///< of what all show, in the order of ranks, micro-batches, pieces
};

}  // namespace lighthouse
