// How far a model's outputs move when something that they should not see is changed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lighthouse {

/// What a model makes of one sequence.
struct Outputs {
  at::Tensor hidden;  ///< [N, dim] what the output head reads
  at::Tensor losses;  ///< [N] of the targets, in nats; 0 where there is none
};

/// One output after one change.
struct Place {
  int64_t sequence = 0;  ///< which was changed
  int64_t changed = 0;   ///< token, the first of those that were changed
  int64_t output = 0;    ///< token
};
/// "sequence 3, change of token 100, output of token 17".
std::string to_string(const Place& place);

/// Over all outputs that were compared. An output has moved when its hidden state has other bits in some channel; its
/// delta is the largest |change| of a channel, infinite where the new value is not finite. Medians are over the outputs
/// that moved.
struct Moves {
  int64_t num_changes = 0;
  int64_t num_outputs = 0;  ///< compared, over all changes
  int64_t num_moved = 0;
  double max_delta = 0, median_delta = 0;
  double max_loss = 0, median_loss = 0;           ///< of the |change| of the loss of the output's target, in nats
  int64_t max_distance = 0, median_distance = 0;  ///< tokens between the change and an output that moved
  Place worst;                                    ///< where max_delta is; of no meaning when nothing moved
};

/// Adds up what every change did.
class MoveCounter {
 public:
  /// `unseen`, bool [N]: the outputs to compare. Throws std::runtime_error naming sequence and token where `before` is
  /// not finite: nothing can be said of such a model.
  void add(const Outputs& before, const Outputs& after, const at::Tensor& unseen, int64_t sequence, int64_t changed);
  Moves total() const;

 private:
  Moves counts_;
  std::vector<at::Tensor> deltas_, losses_, distances_;  ///< of the moved outputs, a tensor for each change
};

}  // namespace lighthouse
