// Whether knowing the continuation, through the selection alone, lowers the loss of what comes before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "audit/moves.h"
#include "data/sequence_loader.h"

namespace lighthouse {

/// A mean over sequences of every sequence's mean over its targets.
struct SequenceMean {
  double mean = 0;
  double standard_error = 0;  ///< over sequences; NaN for fewer than two
  int64_t num_targets = 0;
};

/// Outputs that stand `nearest` to `farthest` tokens before a cut; the last one before it stands 1 before it.
struct DistanceBand {
  int64_t nearest;
  int64_t farthest;  ///< kNoFarthest: the band has no end
  SequenceMean difference;
};
inline constexpr int64_t kNoFarthest = INT64_MAX;

/// Sequences are cut, and continued by another sequence. Of the targets of outputs before the cut, in the document that
/// is cut: the loss with the own continuation minus the loss with the other one, in nats; negative where look-ahead
/// helps. Everything but the selection is computed from the past alone, so the selection is all that makes a
/// difference.
struct Lookahead {
  double loss = 0;                        ///< mean over the targets of whole sequences with their own continuation
  SequenceMean difference;                ///< of all outputs before the cuts
  std::vector<DistanceBand> by_distance;  ///< nearest first: output 1 has had all of its future exchanged
};

/// Adds up the losses before and after every cut.
class LookaheadMeter {
 public:
  LookaheadMeter();
  /// `own` and `other`: the losses [N] of sequence number `index` with its own continuation and with another from `cut`
  /// on.
  void add(const Sequence& sequence, int64_t index, int64_t cut, const at::Tensor& own, const at::Tensor& other);
  Lookahead result() const;

 private:
  /// [sequence] sum and number of targets.
  using Sums = std::vector<std::pair<double, int64_t>>;
  static void add_to(Sums& sums, const Sequence& sequence, int64_t index, const at::Tensor& values, int64_t begin,
                     int64_t end);
  static SequenceMean mean_of(const Sums& sums);

  Sums own_, difference_;
  std::vector<Sums> by_distance_;
};

}  // namespace lighthouse
