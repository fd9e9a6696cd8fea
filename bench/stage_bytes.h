// The memory traffic that a stage cannot do without, from the selection that was made.
#pragma once

#include <ATen/core/Tensor.h>

#include "bench/contestant.h"
#include "lighthouse/geometry.h"

namespace lighthouse::bench {

/// Bytes read plus bytes written by one call; what is needed twice counts once.
struct StageBytes {
  double pool_and_score;     ///< q, k, v -> maxima of every head and level, coarsest means
  double pool_scores;        ///< scores of every token and KV head -> maxima
  double select;             ///< maxima of every head -> both index arrays
  double select_by_group;    ///< maxima of every KV head -> both index arrays
  double gather;             ///< q, k, v -> rows
  double gather_with_means;  ///< tokens under expanded coarsest entries, coarsest means -> rows
  double scatter;            ///< rows of o -> o
  double scatter_backward;   ///< gradient of o -> rows
  double gather_backward;    ///< gradients of rows -> gradients of q, k, v
  double dilated_norms;      ///< two outputs of N tokens -> scores of every token and query head
  double gla;                ///< q, k, v and the gate once for each of two scores -> scores
};

/// `selection` int32 [B, H_kv, S] on any device, of one unpacked row.
StageBytes stage_bytes(const Inputs& inputs, const at::Tensor& selection, const SelectionConfig& config);

}  // namespace lighthouse::bench
